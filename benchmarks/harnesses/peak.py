"""Run a program, and print the peak memory of its largest process.

python peak.py PROGRAM ARGUMENT ...
"""

from __future__ import annotations

import resource
import subprocess
import sys

if __name__ == "__main__":
    code = subprocess.run(sys.argv[1:], check=False).returncode
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"\nPEAK {most / (2**20 if sys.platform == 'darwin' else 1024):.1f}")
    raise SystemExit(code)
