// SPDX-License-Identifier: GPL-2.0-or-later
#include "witness_capture.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "witness_filter.h"

namespace witness {
namespace {

// Many small blocks: every block lasts for at least kRetireMs, however few frames it holds, so
// their number is how long the witness may be kept from the CPU (1024 of them: 8 s).
constexpr std::uint32_t kBlockBytesMax = 1U << 16;
constexpr std::uint32_t kBlockBytesMin = 4096;
constexpr std::uint32_t kFrameBytes = 2048;
// A block that is not full is handed over after this time.
constexpr std::uint32_t kRetireMs = 8;

std::string errno_text(const std::string& what) { return what + ": " + std::strerror(errno); }

// Opens a packet socket inside the namespace and comes back to our own.
Result<int> open_socket(const std::string& netns) {
  int home = -1;
  if (!netns.empty()) {
    home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    const int there = open(netns.c_str(), O_RDONLY | O_CLOEXEC);
    const bool entered = home >= 0 && there >= 0 && setns(there, CLONE_NEWNET) == 0;
    const std::string why = errno_text("cannot enter the network namespace " + netns);
    if (there >= 0) close(there);
    if (!entered) {
      if (home >= 0) close(home);
      return tl::unexpected(why);
    }
  }
  // Protocol 0: nothing is queued before filter and ring are in place and the socket is bound.
  const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
  const std::string why = errno_text("cannot open a packet socket (needs CAP_NET_RAW)");
  if (home >= 0) {
    const bool back = setns(home, CLONE_NEWNET) == 0;
    close(home);
    if (!back) {
      if (fd >= 0) close(fd);
      return tl::unexpected("cannot return from the network namespace " + netns);
    }
  }
  if (fd < 0) return tl::unexpected(why);
  return fd;
}

template <class T>
bool set_option(int fd, int level, int name, const T& value) {
  return setsockopt(fd, level, name, &value, sizeof value) == 0;
}

}  // namespace

struct Capture::Ring {
  int fd = -1;
  std::string netns;
  Side side = Side::kSwitchPort;
  std::uint8_t* memory = nullptr;
  std::uint32_t block_bytes = 0;
  std::uint32_t block_count = 0;
  std::uint32_t next_block = 0;
  std::map<int, std::uint8_t> link_by_ifindex;

  Ring() = default;
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;
  ~Ring() {
    if (memory != nullptr) munmap(memory, std::size_t{block_bytes} * block_count);
    if (fd >= 0) close(fd);
  }

  Result<void> start(const Setup& setup, std::uint32_t ring_kib) {
    auto opened = open_socket(netns);
    if (!opened) return tl::unexpected(opened.error());
    fd = *opened;
    const int version = TPACKET_V3;
    if (!set_option(fd, SOL_PACKET, PACKET_VERSION, version)) {
      return tl::unexpected(errno_text("cannot choose TPACKET_V3"));
    }
    const int ignore = side == Side::kSwitchPort ? 1 : 0;
    if (!set_option(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, ignore)) {
      return tl::unexpected(errno_text("cannot ignore outgoing frames"));
    }
    auto code = build_filter(setup, side);
    sock_fprog program{static_cast<unsigned short>(code.size()), code.data()};
    if (!set_option(fd, SOL_SOCKET, SO_ATTACH_FILTER, program)) {
      return tl::unexpected(errno_text("cannot attach the capture filter"));
    }
    return map_ring(ring_kib);
  }

  Result<void> map_ring(std::uint32_t ring_kib) {
    block_bytes = kBlockBytesMax;
    while (block_bytes > kBlockBytesMin && block_bytes > ring_kib * 1024 / 2) block_bytes /= 2;
    block_count = std::max<std::uint32_t>(1, ring_kib * 1024 / block_bytes);
    tpacket_req3 request{};
    request.tp_block_size = block_bytes;
    request.tp_block_nr = block_count;
    request.tp_frame_size = kFrameBytes;
    request.tp_frame_nr = block_bytes / kFrameBytes * block_count;
    request.tp_retire_blk_tov = kRetireMs;
    if (!set_option(fd, SOL_PACKET, PACKET_RX_RING, request)) {
      return tl::unexpected(
          errno_text("cannot get a capture ring of " + std::to_string(ring_kib) + " KiB"));
    }
    void* mapped = mmap(nullptr, std::size_t{block_bytes} * block_count, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_POPULATE, fd, 0);
    if (mapped == MAP_FAILED) return tl::unexpected(errno_text("cannot map the capture ring"));
    memory = static_cast<std::uint8_t*>(mapped);
    sockaddr_ll everywhere{};
    everywhere.sll_family = AF_PACKET;
    everywhere.sll_protocol = htons(ETH_P_ALL);
    if (bind(fd, reinterpret_cast<sockaddr*>(&everywhere), sizeof everywhere) != 0) {
      return tl::unexpected(errno_text("cannot start the capture"));
    }
    return {};
  }
};

Capture::Capture(const Setup& setup)
    : setup_(setup),
      decoder_(setup),
      seen_(setup.links.size(), false),
      frames_(setup.links.size(), 0) {}

Capture::~Capture() = default;

Result<std::unique_ptr<Capture>> Capture::open(const Setup& setup, std::uint32_t ring_kib) {
  std::unique_ptr<Capture> capture(new Capture(setup));
  for (const Link& link : setup.links) {
    const auto same = std::find_if(
        capture->rings_.begin(), capture->rings_.end(),
        [&](const auto& ring) { return ring->netns == link.netns && ring->side == link.side; });
    capture->ring_of_link_.push_back(static_cast<std::size_t>(same - capture->rings_.begin()));
    if (same != capture->rings_.end()) continue;
    auto ring = std::make_unique<Ring>();
    ring->netns = link.netns;
    ring->side = link.side;
    if (auto started = ring->start(setup, ring_kib); !started) {
      return tl::unexpected("link " + link.name + ": " + started.error());
    }
    capture->rings_.push_back(std::move(ring));
  }
  return capture;
}

std::uint8_t Capture::link_of(Ring& ring, int ifindex) {
  const auto known = ring.link_by_ifindex.find(ifindex);
  if (known != ring.link_by_ifindex.end()) return known->second;
  ifreq request{};
  request.ifr_ifindex = ifindex;
  if (ioctl(ring.fd, SIOCGIFNAME, &request) != 0) return kNoLink;
  for (std::size_t i = 0; i < setup_.links.size(); ++i) {
    if (rings_[ring_of_link_[i]].get() == &ring && setup_.links[i].interface == request.ifr_name) {
      ring.link_by_ifindex[ifindex] = static_cast<std::uint8_t>(i);
      return static_cast<std::uint8_t>(i);
    }
  }
  return kNoLink;  // not remembered: the interface may yet be given a name that we look for
}

void Capture::take_block(Ring& ring, std::uint8_t* block, std::vector<Record>& out) {
  const auto* header = reinterpret_cast<const tpacket_block_desc*>(block);
  const std::uint8_t* at = block + header->hdr.bh1.offset_to_first_pkt;
  for (std::uint32_t i = 0; i < header->hdr.bh1.num_pkts; ++i) {
    const auto* packet = reinterpret_cast<const tpacket3_hdr*>(at);
    const auto* from =
        reinterpret_cast<const sockaddr_ll*>(at + TPACKET_ALIGN(sizeof(tpacket3_hdr)));
    const std::uint8_t link = link_of(ring, from->sll_ifindex);
    if (link != kNoLink) {
      ++frames_[link];
      seen_[link] = true;
      const std::uint64_t time_ns = std::uint64_t{packet->tp_sec} * 1'000'000'000 + packet->tp_nsec;
      decoder_.decode({at + packet->tp_mac, packet->tp_snaplen}, time_ns, link, out);
    }
    at += packet->tp_next_offset;
  }
}

void Capture::take_ring(Ring& ring, std::vector<Record>& out) {
  // At most one round, so that a flood on one ring cannot starve the others.
  for (std::uint32_t i = 0; i < ring.block_count; ++i) {
    std::uint8_t* block = ring.memory + std::size_t{ring.block_bytes} * ring.next_block;
    auto* header = reinterpret_cast<tpacket_block_desc*>(block);
    if ((__atomic_load_n(&header->hdr.bh1.block_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER) == 0) {
      return;
    }
    take_block(ring, block, out);
    __atomic_store_n(&header->hdr.bh1.block_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
    ring.next_block = (ring.next_block + 1) % ring.block_count;
  }
}

void Capture::take(int timeout_ms, std::vector<Record>& out) {
  std::vector<pollfd> waits;
  for (const auto& ring : rings_) waits.push_back({ring->fd, POLLIN, 0});
  poll(waits.data(), waits.size(), timeout_ms);
  for (const auto& ring : rings_) take_ring(*ring, out);
}

std::uint64_t Capture::take_drops() {
  std::uint64_t drops = 0;
  for (const auto& ring : rings_) {
    tpacket_stats_v3 stats{};
    socklen_t length = sizeof stats;
    // The kernel resets the counters with every reading.
    if (getsockopt(ring->fd, SOL_PACKET, PACKET_STATISTICS, &stats, &length) == 0) {
      drops += stats.tp_drops;
    }
  }
  return drops;
}

bool Capture::is_present(std::size_t link) const {
  ifreq request{};
  std::strncpy(request.ifr_name, setup_.links[link].interface.c_str(), IFNAMSIZ - 1);
  return ioctl(rings_[ring_of_link_[link]]->fd, SIOCGIFINDEX, &request) == 0;
}

std::vector<std::string> Capture::missing_links_now() const {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < setup_.links.size(); ++i) {
    if (!is_present(i)) names.push_back(setup_.links[i].name);
  }
  return names;
}

std::vector<std::string> Capture::missing_links() {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < setup_.links.size(); ++i) {
    if (!seen_[i]) seen_[i] = is_present(i);
    if (!seen_[i]) names.push_back(setup_.links[i].name);
  }
  return names;
}

}  // namespace witness
