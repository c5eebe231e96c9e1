/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The block of a packet: the one definition that every part of saru shares.
 *
 * C11, C++20, the kernel and BPF; static inline, no library, no memory of its own.
 *
 * A packet to a shared address has a 16-bit *selector value*; the address's blocks are equal slices
 * of the 65536 values. What the value is depends on the *selector*:
 *
 *   src-port       the client's port
 *   dst-port       the service's port
 *   src-addr       the low 16 bits of the client's address
 *   dst-addr       the low 16 bits of the shared address
 *   src-addr-port  the high 16 bits of the jhash (below) of the client's address and port
 *
 * One selector is for everything; a *service* (destination port, if wanted with protocol and
 * address) may have another one. The first service that fits a packet counts.
 *
 *   TCP, UDP, UDP-Lite, DCCP, SCTP    by the selector
 *   ICMP echo, timestamp; ICMPv6 echo by src-addr, always
 *   ICMP and ICMPv6 errors            by the packet that they quote, mirrored: its destination is
 *                                     the client. Where it is not plain, by the src-addr of the
 *                                     error itself. Plain: its protocol has ports; IPv4 without
 *                                     options and not a later fragment; IPv6 without extension
 *                                     headers.
 *   neighbour discovery               every node (SARU_EVERYBODY)
 *   everything else                   nobody (SARU_NOBODY)
 *
 * A packet is looked at as a whole, after defragmentation; a later fragment is nobody's. A packet
 * that ends before what its selector looks at is nobody's. IPv4 options and IPv6 extension headers
 * (hop-by-hop, routing, destination, fragment) are skipped; an authentication header is a protocol
 * like any other, and nobody's, in both families.
 */
#pragma once

#if defined(__KERNEL__) || defined(__bpf__)
#include <linux/types.h>
typedef __u8 saru_u8;
typedef __u16 saru_u16;
typedef __u32 saru_u32;
typedef __s32 saru_s32;
#else
#include <stdint.h>
typedef uint8_t saru_u8;
typedef uint16_t saru_u16;
typedef uint32_t saru_u32;
typedef int32_t saru_s32;
#endif

enum saru_selector {
  SARU_SRC_PORT = 0,
  SARU_DST_PORT = 1,
  SARU_SRC_ADDR = 2,
  SARU_DST_ADDR = 3,
  SARU_SRC_ADDR_PORT = 4,
};

enum {
  SARU_SELECTOR_VALUES = 65536,
  SARU_MAX_SERVICES = 32,
  /* A chain of more extension headers than this is nobody's. */
  SARU_MAX_EXTENSIONS = 64,
};

/* What is no value. */
enum {
  SARU_NOBODY = -1,
  SARU_EVERYBODY = -2,
};

/* ---- Protocols --------------------------------------------------------------------------- */

enum {
  SARU_ICMP = 1,
  SARU_TCP = 6,
  SARU_UDP = 17,
  SARU_DCCP = 33,
  SARU_ICMPV6 = 58,
  SARU_SCTP = 132,
  SARU_UDPLITE = 136,
};

/* Their headers begin with source port and destination port, two bytes each. */
static inline int saru_has_ports(saru_u32 protocol) {
  return protocol == SARU_TCP || protocol == SARU_UDP || protocol == SARU_DCCP ||
         protocol == SARU_SCTP || protocol == SARU_UDPLITE;
}

enum saru_icmp_kind {
  SARU_ICMP_OTHER = 0,
  SARU_ICMP_QUERY,     /* by the client's address */
  SARU_ICMP_ERROR,     /* by the quoted packet */
  SARU_ICMP_NEIGHBOUR, /* every node */
};

static inline enum saru_icmp_kind saru_icmp_kind_of(saru_u32 version, saru_u32 type) {
  if (version == 4) {
    if (type == 0 || type == 8 || type == 13 || type == 14) return SARU_ICMP_QUERY;
    if (type == 3 || type == 11 || type == 12) return SARU_ICMP_ERROR;
    return SARU_ICMP_OTHER;
  }
  if (type == 128 || type == 129) return SARU_ICMP_QUERY;
  if (type >= 1 && type <= 4) return SARU_ICMP_ERROR;
  if (type == 135 || type == 136) return SARU_ICMP_NEIGHBOUR;
  return SARU_ICMP_OTHER;
}

/* ---- Where a header has what we look at, in bytes ---------------------------------------- */

enum {
  SARU_V4_SOURCE = 12,
  SARU_V4_DESTINATION = 16,
  SARU_V4_HEADER = 20,
  SARU_V4_FRAGMENT = 6,
  SARU_V4_PROTOCOL = 9,
  SARU_V4_PLAIN = 0x45, /* first byte: version 4, no options */
  SARU_V4_OFFSET_MASK = 0x1fff,
  SARU_V6_SOURCE = 8,
  SARU_V6_DESTINATION = 24,
  SARU_V6_HEADER = 40,
  SARU_V6_PROTOCOL = 6,
  SARU_PORT_SOURCE = 0,
  SARU_PORT_DESTINATION = 2,
  SARU_ICMP_HEADER = 8, /* an error's quoted packet comes behind it */
};

/* ---- jhash ------------------------------------------------------------------------------- */

/*
 * What src-addr-port hashes, as nf_tables lays out a concatenation: the address, the port and two
 * zero bytes, everything in network byte order.
 */
enum {
  SARU_HASH_V4 = 8,
  SARU_HASH_V6 = 20,
};

static inline saru_u32 saru_rotate(saru_u32 word, saru_u32 by) {
  return (word << by) | (word >> (32 - by));
}

/*
 * Bob Jenkins' lookup3 as <linux/jhash.h> has it. The kernel reads words in its own byte order when
 * there are more than twelve bytes, so all nodes of a cluster must have the same one.
 */
static inline saru_u32 saru_word(const saru_u8* at) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  return ((saru_u32)at[0] << 24) | ((saru_u32)at[1] << 16) | ((saru_u32)at[2] << 8) | at[3];
#else
  return at[0] | ((saru_u32)at[1] << 8) | ((saru_u32)at[2] << 16) | ((saru_u32)at[3] << 24);
#endif
}

static inline saru_u32 saru_last_word(const saru_u8* at) {
  return at[0] | ((saru_u32)at[1] << 8) | ((saru_u32)at[2] << 16) | ((saru_u32)at[3] << 24);
}

static inline void saru_jhash_final(saru_u32* a, saru_u32* b, saru_u32* c) {
  *c ^= *b;
  *c -= saru_rotate(*b, 14);
  *a ^= *c;
  *a -= saru_rotate(*c, 11);
  *b ^= *a;
  *b -= saru_rotate(*a, 25);
  *c ^= *b;
  *c -= saru_rotate(*b, 16);
  *a ^= *c;
  *a -= saru_rotate(*c, 4);
  *b ^= *a;
  *b -= saru_rotate(*a, 14);
  *c ^= *b;
  *c -= saru_rotate(*b, 24);
}

/* Of exactly SARU_HASH_V4 or SARU_HASH_V6 bytes. */
static inline saru_u32 saru_jhash(const saru_u8* key, saru_u32 length, saru_u32 seed) {
  saru_u32 a = 0xdeadbeef + length + seed;
  saru_u32 b = a;
  saru_u32 c = a;
  if (length > 12) {
    a += saru_word(key);
    b += saru_word(key + 4);
    c += saru_word(key + 8);
    a -= c;
    a ^= saru_rotate(c, 4);
    c += b;
    b -= a;
    b ^= saru_rotate(a, 6);
    a += c;
    c -= b;
    c ^= saru_rotate(b, 8);
    b += a;
    a -= c;
    a ^= saru_rotate(c, 16);
    c += b;
    b -= a;
    b ^= saru_rotate(a, 19);
    a += c;
    c -= b;
    c ^= saru_rotate(b, 4);
    b += a;
    key += 12;
  }
  a += saru_last_word(key);
  b += saru_last_word(key + 4);
  saru_jhash_final(&a, &b, &c);
  return c;
}

/* ---- A connection, and its value --------------------------------------------------------- */

/* For one destination port another selector than for the rest. */
struct saru_service {
  saru_u8 selector;
  saru_u8 protocol; /* 0: every protocol that has ports */
  saru_u8 version;  /* of the address, 4 or 6; 0: every shared address */
  saru_u8 address[16];
  saru_u16 port; /* host byte order */
};

struct saru_selection {
  saru_u8 selector;
  saru_u32 seed;
  saru_u32 service_count;
  const struct saru_service* services; /* the more special ones first */
};

/* What a packet tells about its connection. */
enum {
  SARU_HAS_CLIENT_ADDRESS = 1,
  SARU_HAS_SERVER_ADDRESS = 2,
  SARU_HAS_CLIENT_PORT = 4,
  SARU_HAS_SERVER_PORT = 8,
};
struct saru_flow {
  saru_u8 version;  /* 4 or 6 */
  saru_u8 protocol; /* one that has ports */
  saru_u8 has;      /* SARU_HAS_... */
  saru_u8 client_address[16];
  saru_u8 server_address[16]; /* the shared one */
  saru_u16 client_port;
  saru_u16 server_port;
};

/* The low 16 bits of an address. */
static inline saru_s32 saru_low16(const saru_u8* address, saru_u32 version) {
  const saru_u8* low = address + (version == 4 ? 2 : 14);
  return low[0] * 256 + low[1];
}

static inline int saru_service_fits(const struct saru_service* service,
                                    const struct saru_flow* flow) {
  saru_u32 i;
  if (!(flow->has & SARU_HAS_SERVER_PORT) || service->port != flow->server_port) return 0;
  if (service->protocol != 0 && service->protocol != flow->protocol) return 0;
  if (service->version == 0) return 1;
  if (service->version != flow->version || !(flow->has & SARU_HAS_SERVER_ADDRESS)) return 0;
  for (i = 0; i < (flow->version == 4 ? 4U : 16U); ++i) {
    if (service->address[i] != flow->server_address[i]) return 0;
  }
  return 1;
}

static inline saru_u8 saru_selector_of(const struct saru_flow* flow,
                                       const struct saru_selection* selection) {
  saru_u32 i;
  for (i = 0; i < SARU_MAX_SERVICES && i < selection->service_count; ++i) {
    if (saru_service_fits(&selection->services[i], flow)) return selection->services[i].selector;
  }
  return selection->selector;
}

static inline saru_s32 saru_hash_value(const struct saru_flow* flow, saru_u32 seed) {
  const saru_u32 size = flow->version == 4 ? 4 : 16;
  saru_u8 key[SARU_HASH_V6];
  saru_u32 i;
  for (i = 0; i < SARU_HASH_V6; ++i) key[i] = 0;
  for (i = 0; i < size; ++i) key[i] = flow->client_address[i];
  key[size] = (saru_u8)(flow->client_port >> 8);
  key[size + 1] = (saru_u8)(flow->client_port & 0xff);
  return (saru_s32)(saru_jhash(key, size + 4, seed) >> 16);
}

/* What of a flow a selector looks at: SARU_HAS_... */
static inline saru_u32 saru_needs_of(saru_u32 selector) {
  if (selector == SARU_SRC_PORT) return SARU_HAS_CLIENT_PORT;
  if (selector == SARU_DST_PORT) return SARU_HAS_SERVER_PORT;
  if (selector == SARU_SRC_ADDR) return SARU_HAS_CLIENT_ADDRESS;
  if (selector == SARU_DST_ADDR) return SARU_HAS_SERVER_ADDRESS;
  return SARU_HAS_CLIENT_ADDRESS | SARU_HAS_CLIENT_PORT;
}

/* 0 to 65535, or SARU_NOBODY when the packet does not tell what its selector wants. */
static inline saru_s32 saru_flow_value(const struct saru_flow* flow,
                                       const struct saru_selection* selection) {
  const saru_u32 selector = saru_selector_of(flow, selection);
  const saru_u32 needs = saru_needs_of(selector);
  if ((flow->has & needs) != needs) return SARU_NOBODY;
  if (selector == SARU_SRC_PORT) return flow->client_port;
  if (selector == SARU_DST_PORT) return flow->server_port;
  if (selector == SARU_SRC_ADDR) return saru_low16(flow->client_address, flow->version);
  if (selector == SARU_DST_ADDR) return saru_low16(flow->server_address, flow->version);
  return saru_hash_value(flow, selection->seed);
}

/* The block of a value; `blocks` is a power of two. */
static inline saru_u32 saru_block_of(saru_u32 value, saru_u32 blocks) {
  return value / (SARU_SELECTOR_VALUES / blocks);
}

/* ---- A packet, and its value ------------------------------------------------------------- */

/*
 * An IP packet, from the first byte of its IP header. Who keeps packets otherwise (sk_buff) defines
 * SARU_HAS_PACKET, struct saru_packet, saru_read and saru_length before this header. saru_read
 * copies `size` bytes from `offset`; 0, or not 0 when the packet has fewer.
 */
#ifndef SARU_HAS_PACKET
struct saru_packet {
  const saru_u8* data;
  saru_u32 length;
};
static inline int saru_read(const struct saru_packet* packet, saru_u32 offset, void* to,
                            saru_u32 size) {
  saru_u32 i;
  if (offset > packet->length || size > packet->length - offset) return -1;
  for (i = 0; i < size; ++i) ((saru_u8*)to)[i] = packet->data[offset + i];
  return 0;
}
static inline saru_u32 saru_length(const struct saru_packet* packet) { return packet->length; }
#endif

/* Where a packet has its parts. */
struct saru_headers {
  saru_u32 version;
  saru_u32 protocol;  /* behind the options and extension headers */
  saru_u32 transport; /* offset of its header */
  saru_u32 end;       /* of the packet, as its IP header says; what comes then is padding */
};

/* Reads within the end that the IP header names. */
static inline int saru_get(const struct saru_packet* packet, const struct saru_headers* at,
                           saru_u32 offset, void* to, saru_u32 size) {
  if (offset > at->end || size > at->end - offset) return -1;
  return saru_read(packet, offset, to, size);
}

static inline saru_u32 saru_big16(const saru_u8* bytes) { return bytes[0] * 256U + bytes[1]; }

static inline int saru_find_v4(const struct saru_packet* packet, struct saru_headers* at) {
  saru_u8 ip[SARU_V4_HEADER];
  saru_u32 header;
  saru_u8 last;
  if (saru_read(packet, 0, ip, sizeof ip)) return -1;
  header = (ip[0] & 15U) * 4;
  at->end = saru_big16(ip + 2);
  if (header < SARU_V4_HEADER || at->end < header) return -1;
  if (saru_read(packet, at->end - 1, &last, 1)) return -1;
  if (saru_big16(ip + SARU_V4_FRAGMENT) & SARU_V4_OFFSET_MASK) return -1;
  at->protocol = ip[SARU_V4_PROTOCOL];
  at->transport = header;
  return 0;
}

static inline int saru_find_v6(const struct saru_packet* packet, struct saru_headers* at) {
  enum { kHopByHop = 0, kRouting = 43, kFragment = 44, kDestination = 60 };
  saru_u8 ip[SARU_V6_HEADER];
  saru_u8 extension[4];
  saru_u8 last;
  saru_u32 i;
  if (saru_read(packet, 0, ip, sizeof ip)) return -1;
  at->end = SARU_V6_HEADER + saru_big16(ip + 4);
  /* A jumbogram; the kernel asks for no more than that. */
  if (at->end == SARU_V6_HEADER && ip[SARU_V6_PROTOCOL] == kHopByHop) at->end = saru_length(packet);
  if (saru_read(packet, at->end - 1, &last, 1)) return -1;
  at->protocol = ip[SARU_V6_PROTOCOL];
  at->transport = SARU_V6_HEADER;
  for (i = 0; i <= SARU_MAX_EXTENSIONS; ++i) {
    const saru_u32 kind = at->protocol;
    if (kind != kHopByHop && kind != kRouting && kind != kFragment && kind != kDestination) {
      return 0;
    }
    /* As much as ipv6_find_hdr() looks at; that the rest is there is not asked. */
    if (saru_get(packet, at, at->transport, extension,
                 (kind == kFragment || kind == kRouting) ? 4 : 2))
      return -1;
    if (kind == kFragment && (saru_big16(extension + 2) & 0xfff8U)) return -1;
    at->protocol = extension[0];
    at->transport += kind == kFragment ? 8U : (extension[1] + 1U) * 8;
  }
  return -1;
}

/* 0, or not 0 for what is no whole IP packet, a later fragment, or headers without an end. */
static inline int saru_find_headers(const struct saru_packet* packet, struct saru_headers* at) {
  saru_u8 first;
  if (saru_read(packet, 0, &first, 1)) return -1;
  at->version = first >> 4;
  if (at->version == 4) return saru_find_v4(packet, at);
  if (at->version == 6) return saru_find_v6(packet, at);
  return -1;
}

/*
 * The connection that an IP header at `ip` and ports at `ports` tell of. `client_sent`: the packet
 * itself came from the client; otherwise it is quoted, and was sent by the server.
 */
static inline void saru_read_flow(const struct saru_packet* packet, const struct saru_headers* at,
                                  saru_u32 ip, saru_u32 ports, int client_sent,
                                  struct saru_flow* flow) {
  const int v4 = at->version == 4;
  const saru_u32 source = ip + (v4 ? SARU_V4_SOURCE : SARU_V6_SOURCE);
  const saru_u32 destination = ip + (v4 ? SARU_V4_DESTINATION : SARU_V6_DESTINATION);
  const saru_u32 size = v4 ? 4 : 16;
  const saru_u32 source_port = ports + SARU_PORT_SOURCE;
  const saru_u32 destination_port = ports + SARU_PORT_DESTINATION;
  saru_u8 port[2];
  flow->version = (saru_u8)at->version;
  flow->has = 0;
  if (!saru_get(packet, at, client_sent ? source : destination, flow->client_address, size)) {
    flow->has |= SARU_HAS_CLIENT_ADDRESS;
  }
  if (!saru_get(packet, at, client_sent ? destination : source, flow->server_address, size)) {
    flow->has |= SARU_HAS_SERVER_ADDRESS;
  }
  if (!saru_get(packet, at, client_sent ? source_port : destination_port, port, 2)) {
    flow->client_port = (saru_u16)saru_big16(port);
    flow->has |= SARU_HAS_CLIENT_PORT;
  }
  if (!saru_get(packet, at, client_sent ? destination_port : source_port, port, 2)) {
    flow->server_port = (saru_u16)saru_big16(port);
    flow->has |= SARU_HAS_SERVER_PORT;
  }
}

/* Whether the packet quoted at `ip` is plain; then its protocol. */
static inline int saru_quoted_plain(const struct saru_packet* packet, const struct saru_headers* at,
                                    saru_u32 ip, saru_u8* protocol) {
  saru_u8 first;
  saru_u8 fragment[2];
  if (saru_get(packet, at, ip, &first, 1)) return 0;
  if (at->version == 4) {
    if (first != SARU_V4_PLAIN) return 0;
    if (saru_get(packet, at, ip + SARU_V4_FRAGMENT, fragment, 2)) return 0;
    if (saru_big16(fragment) & SARU_V4_OFFSET_MASK) return 0;
    if (saru_get(packet, at, ip + SARU_V4_PROTOCOL, protocol, 1)) return 0;
  } else {
    if (first >> 4 != 6) return 0;
    if (saru_get(packet, at, ip + SARU_V6_PROTOCOL, protocol, 1)) return 0;
  }
  return saru_has_ports(*protocol);
}

static inline saru_s32 saru_icmp_value(const struct saru_packet* packet,
                                       const struct saru_headers* at,
                                       const struct saru_selection* selection) {
  const saru_u32 quoted = at->transport + SARU_ICMP_HEADER;
  const saru_u32 header = at->version == 4 ? SARU_V4_HEADER : SARU_V6_HEADER;
  struct saru_flow flow;
  enum saru_icmp_kind kind;
  saru_u8 type;
  if (saru_get(packet, at, at->transport, &type, 1)) return SARU_NOBODY;
  kind = saru_icmp_kind_of(at->version, type);
  if (kind == SARU_ICMP_NEIGHBOUR) return SARU_EVERYBODY;
  if (kind == SARU_ICMP_OTHER) return SARU_NOBODY;
  if (kind == SARU_ICMP_ERROR && saru_quoted_plain(packet, at, quoted, &flow.protocol)) {
    saru_read_flow(packet, at, quoted, quoted + header, 0, &flow);
    return saru_flow_value(&flow, selection);
  }
  saru_read_flow(packet, at, 0, at->end, 1, &flow);
  return saru_low16(flow.client_address, at->version);
}

/* 0 to 65535, SARU_NOBODY or SARU_EVERYBODY. The caller knows that it is for a shared address. */
static inline saru_s32 saru_packet_value(const struct saru_packet* packet,
                                         const struct saru_selection* selection) {
  struct saru_headers at;
  struct saru_flow flow;
  if (saru_find_headers(packet, &at)) return SARU_NOBODY;
  if (at.protocol == (at.version == 4 ? SARU_ICMP : SARU_ICMPV6)) {
    return saru_icmp_value(packet, &at, selection);
  }
  if (!saru_has_ports(at.protocol)) return SARU_NOBODY;
  flow.protocol = (saru_u8)at.protocol;
  saru_read_flow(packet, &at, 0, at.transport, 1, &flow);
  return saru_flow_value(&flow, selection);
}
