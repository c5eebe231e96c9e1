# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs ./demo."""
import sys

from livelib.demo import main

sys.exit(main(sys.argv[1:]))
