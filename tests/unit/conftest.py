# Copyright (c) 2026 The baremetal.llm authors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings of hypothesis for all unit tests: the same examples in every run, or new ones when asked to explore."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_ALLOWED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
settings.register_profile("unit", deadline=None, derandomize=True, max_examples=60, suppress_health_check=_ALLOWED)
settings.register_profile("explore", deadline=None, max_examples=2000, suppress_health_check=_ALLOWED)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "unit"))
