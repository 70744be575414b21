"""In a process of its own: a real interrupt, and memory that really runs out."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, os, resource, signal, sys, threading
import numpy as np
import antiphon
from antiphon.encoding import Encoder, runner
from antiphon.model.parity import unlike_texts

runner.WINDOW = 64  # several windows: one is tokenised in a thread while another runs
model = antiphon.build(sys.argv[1], "classical", pooling="mean", max_tokens=400, dtype=sys.argv[2])
texts = [f"{number} " + "word " * (60 + number % 7) for number in range(400)] + unlike_texts()
truth = Encoder(model, budget=1024).encode(texts)

encoder = Encoder(model, budget=1024)
layer = type(model[0].model.layers[0])  # of the view too
plain, calls = layer.forward, []

def interrupted(*given, **more):
    calls.append(threading.active_count())
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGINT)
    return plain(*given, **more)

layer.forward = interrupted
said = {"threads before": threading.active_count()}
try:
    encoder.encode(texts)
except KeyboardInterrupt:
    said["interrupted"] = True
said["threads while it ran"] = max(calls)
said["threads left"] = threading.active_count()
layer.forward = plain
said["off after the interrupt"] = float(np.abs(encoder.encode(texts) - truth).max())

runner.WINDOW = 2048
encoder = Encoder(model, budget=1 << 17)
pages = int(open("/proc/self/statm").read().split()[0])
most = pages * resource.getpagesize() + (40 << 20)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
said["off without memory"] = float(np.abs(encoder.encode(texts) - truth).max())
said["budget"] = encoder.budget
print(json.dumps(said))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit on memory is Linux's")
def test_an_interrupt_leaves_no_thread_and_a_lack_of_memory_halves_the_budget(tiny_base, programs):
    done = subprocess.run(
        [str(programs / "python"), "-c", PROGRAM, str(tiny_base), "float32"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["interrupted"]
    assert said["threads while it ran"] > said["threads before"]
    assert said["threads left"] == said["threads before"]
    assert said["off after the interrupt"] < 1e-5
    assert said["off without memory"] < 1e-5
    assert 1 < said["budget"] < 1 << 17
