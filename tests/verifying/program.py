"""A user's verifier program for the tests: obeys commands in the response. Plain Python stands for any language."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

last = 0
for line in sys.stdin:
    item = json.loads(line)
    response, reply = item["response"], {"id": item["id"], "score": float(item["response"] == item["answer"])}
    if response == "die":
        sys.exit(3)
    if response == "hang":
        subprocess.Popen(["sleep", f"60.{os.getpid()}"])
        time.sleep(60)
    if response == "rubbish":
        print("no JSON at all", flush=True)
        continue
    if response == "old id":
        reply["id"] = last
    if response == "twice":
        print(json.dumps(reply), flush=True)
    if response == "long":
        reply["detail"] = "x" * 2_000_000
    if response == "pid":
        reply["extracted"] = str(os.getpid())
    if response == "style":
        reply = {"id": item["id"], "status": "wrong", "parts": {"style": 0.5}, "detail": "so-so"}
    if response == "environment":
        reply["extracted"] = ",".join(sorted({"MARK", "HOME"} & set(os.environ)))
    if response == "prompt":
        reply["extracted"] = item["prompt"] + "|" + item["answer"]
    if response in ("score nan", "score text", "no score"):
        reply = {"id": item["id"], "score nan": "-", "detail": response}
        reply |= {} if response == "no score" else {"score": "high"} if response == "score text" else {"score": 1e999}
    if response in ("unparsable", "error", "timeout"):
        reply = {"id": item["id"], "status": response}
    last = item["id"]
    print(json.dumps(reply), flush=True)
