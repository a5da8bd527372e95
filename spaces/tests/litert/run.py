"""Runs TFLite files in LiteRT's interpreter: one JSON line per file on standard output.

Usage: run.py FOLDER, with NAME.tflite and NAME.in (its raw input) for every NAME; writes NAME.got.
"""

import json
import pathlib
import sys

import numpy
from ai_edge_litert.interpreter import Interpreter, OpResolverType

for file in sorted(pathlib.Path(sys.argv[1]).glob("*.tflite")):
    # The reference kernels are what the format's specification is checked by.
    resolver = OpResolverType.BUILTIN_REF
    interpreter = Interpreter(model_path=str(file), experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    given = interpreter.get_input_details()[0]
    values = numpy.fromfile(file.with_suffix(".in"), dtype=given["dtype"])
    interpreter.set_tensor(given["index"], values.reshape(given["shape"]))
    interpreter.invoke()
    result = interpreter.get_output_details()[0]
    interpreter.get_tensor(result["index"]).tofile(file.with_suffix(".got"))
    line = {"name": file.stem, "type": numpy.dtype(result["dtype"]).name, "dims": result["shape"].tolist()}
    print(json.dumps(line), flush=True)
