"""Run a script in a fork of the server of `forked_jobs.py`: python -I -S job_client.py SOCKET SCRIPT"""

import json
import os
import socket
import sys
from pathlib import Path

with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
    server.connect(sys.argv[1])
    request = {"script": sys.argv[2], "folder": str(Path.cwd()), "environment": dict(os.environ)}
    content = json.dumps(request).encode() + b"\n"
    sent = socket.send_fds(server, [content], [0, 1, 2])
    server.sendall(content[sent:])
    code = int(server.recv(64) or b"1")
if code < 0:
    os.kill(os.getpid(), -code)
sys.exit(code)
