"""Make names of runs and launches that fit every vendor's metadata, label, tag or suffix.

A run id reads ``r251125-1k3fq7d0x2ab``: the date (UTC), the time of day in five digits of base 32
(steps of 2.6 ms), and seven random digits. Ids sort by time, start with a letter, never end in a
dash and have 20 characters; their 35 random bits keep several ledgers apart at one vendor. A launch
key is run id and attempt, at most 26 characters of ``[a-z0-9-]``. The key of a batch and the id of
a comparison are like run ids but begin with b and c.
"""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime

# Base 32 digits in order, without i, l, o and u, which are easily misread. Source:
# Crockford, Base 32, https://www.crockford.com/base32.html (2026-11-25), in lower case.
DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
RANDOM_DIGITS = 7
CLOCK_DIGITS = 5
SECONDS_PER_DAY = 86_400
MOST_ATTEMPTS = 99_999
DEPLOYMENT_NAME = re.compile(rf"r\d{{6}}-[{DIGITS}]{{12}}-d\d{{1,4}}")
LAUNCH_KEY = re.compile(rf"\br\d{{6}}-[{DIGITS}]{{12}}-\d{{1,5}}\b")


def run_id(time: float) -> str:
    """Return a new run id for a Unix time; ids sort by it from the year 2000 to 2099."""
    day = datetime.fromtimestamp(time, UTC).strftime("%y%m%d")
    share = time % SECONDS_PER_DAY / SECONDS_PER_DAY
    clock = _digits(int(share * len(DIGITS) ** CLOCK_DIGITS), CLOCK_DIGITS)
    chance = _digits(secrets.randbits(5 * RANDOM_DIGITS), RANDOM_DIGITS)
    return f"r{day}-{clock}{chance}"


def launch_key(run: str, attempt: int) -> str:
    """Return the key of an attempt's job at its backend."""
    if not 1 <= attempt <= MOST_ATTEMPTS:
        raise ValueError(f"attempt is {attempt}; it must be from 1 to {MOST_ATTEMPTS}")
    return f"{run}-{attempt}"


def run_of(key: str) -> str:
    """Return the run id in a launch key."""
    return key.rpartition("-")[0]


def deployment_name(run: str, number: int) -> str:
    """Return the name of a run's deployment at its backend."""
    return f"{run}-d{number}"


def is_deployment_name(name: str) -> bool:
    """Return whether unitune made this deployment name."""
    return DEPLOYMENT_NAME.fullmatch(name) is not None


def launch_key_in(text: str) -> str | None:
    """Return the launch key in a job's name, suffix or label, or None."""
    match = LAUNCH_KEY.search(text)
    return match and match[0]


def batch_key(time: float) -> str:
    """Return a new key for a batch at its backend."""
    return f"b{run_id(time)[1:]}"


def comparison_id(time: float) -> str:
    """Return a new comparison id; ids sort by time."""
    return f"c{run_id(time)[1:]}"


def _digits(value: int, width: int) -> str:
    digits = ""
    for _ in range(width):
        value, digit = divmod(value, len(DIGITS))
        digits = DIGITS[digit] + digits
    return digits
