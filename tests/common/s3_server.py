"""An S3 server in memory: moto, on a port of its own, which it prints. Ends when its input does.

moto looks whether an object is there and then stores it, in two steps. A lock makes them one, as
conditional writes have to be: requests are served one after the other.
"""

import logging
import os
import sys
import threading

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

logging.getLogger("werkzeug").setLevel(logging.ERROR)
application = DomainDispatcherApplication(create_backend_app)
lock = threading.Lock()


def one_by_one(environ, start_response):
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(length)
    if len(body) < length:
        # The connection broke off in mid-upload: S3 keeps nothing of that.
        start_response("400 Bad Request", [("Content-Length", "0")])
        return [b""]
    import io

    environ["wsgi.input"] = io.BytesIO(body)
    with lock:
        return [b"".join(application(environ, start_response))]


def end_with_input():
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=end_with_input, daemon=True).start()
server = make_server("127.0.0.1", 0, one_by_one, threaded=True)
print(server.server_port, flush=True)
server.serve_forever()
