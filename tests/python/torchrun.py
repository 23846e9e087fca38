"""Programs under torchrun, one process a rank."""

import os
import subprocess
import sys


def torchrun(*command, processes=2):
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *map(str, command)]
    return subprocess.run(line, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
