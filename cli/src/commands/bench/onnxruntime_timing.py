"""Times an ONNX file with ONNX Runtime's own Python interface, by the rules of Lathe's agent.

Reads one JSON object from standard input, prints one: version and nanoseconds of every run.
"""

import json
import os
import sys
import time

request = json.load(sys.stdin)
os.sched_setaffinity(0, request["cpus"])

import numpy  # noqa: E402  threads are made by what is imported: they inherit the affinity
import onnxruntime  # noqa: E402

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = request["threads"]
options.inter_op_num_threads = 1
options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
for key in ("session.intra_op.allow_spinning", "session.inter_op.allow_spinning"):
    options.add_session_config_entry(key, "0")
session = onnxruntime.InferenceSession(request["model"], options, providers=["CPUExecutionProvider"])

entry = session.get_inputs()[0]
values = numpy.random.default_rng(0).standard_normal(entry.shape).astype(numpy.float32)
binding = session.io_binding()
binding.bind_cpu_input(entry.name, values)
for output in session.get_outputs():
    binding.bind_output(output.name)


def run():
    start = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
    session.run_with_iobinding(binding)
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) - start


begin = time.monotonic()
runs = 0
while runs < request["warmup_runs"] or time.monotonic() - begin < request["warmup_seconds"]:
    run()
    runs += 1
samples = []
begin = time.monotonic()
while len(samples) < request["min_runs"] or time.monotonic() - begin < request["min_seconds"]:
    samples.append(run())
print(json.dumps({"version": onnxruntime.__version__, "samples_ns": samples}))
