# SPDX-License-Identifier: GPL-2.0-or-later
"""All faults by the names under which they are asked for."""
from livelib import fire_device as device
from livelib import fire_faults as one
from livelib import fire_many as many
from livelib import fire_plants as plant
from livelib import fire_splits as net


def by_name(*classes):
    return {fault.kind: fault for fault in classes}


KINDS = by_name(
    one.CrashAndBoot, one.Reset, one.SarudSleeps, one.CorosyncSleeps, one.BothSleep, one.NodeSleeps,
    one.SarudDies, one.CorosyncDies, one.CorosyncStops, one.RollingRestart, net.Partition,
    net.RingSplit, net.OneWayLoss, one.Flush, one.RulesDeleted, one.AddressDeleted,
    one.MacvlanDeleted, one.MacvlanDown, one.NicDown, one.CarrierLost, one.Hogs, one.FullRun,
    many.AllSleep, many.Blackout, many.TwoAtOnce, device.DeviceDies, device.DeviceLost)

SPLITS = [kind for kind, fault in KINDS.items() if issubclass(fault, net.Split)]

# With each of these a run must fail: or it could not fail at all.
PLANTS = by_name(plant.TwoOwners, plant.Orphans, plant.Abort, plant.Leak)
