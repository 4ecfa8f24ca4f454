# SPDX-License-Identifier: MIT
"""One unmodified keep-alive HTTP client at a fixed pace: what did it get, and how late?

viewer.py URL HOST SECONDS RATE PATH...   prints one JSON document
"""
import http.client
import json
import sys
import time
import urllib.parse

REQUEST_TIMEOUT_S = 20


def main():
    url, host, seconds, rate = sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
    paths = sys.argv[5:]
    address = urllib.parse.urlparse(url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=REQUEST_TIMEOUT_S)
    result = {"requests": 0, "errors": [], "latency_ms_max": 0, "statuses": {}}
    began = time.monotonic()
    while True:
        # Open loop: a request that should have gone out by now counts as waiting.
        due = began + result["requests"] / rate
        if due - began >= seconds:
            break
        time.sleep(max(0, due - time.monotonic()))
        path = paths[result["requests"] % len(paths)]
        result["requests"] += 1
        try:
            connection.request("GET", path, headers={"Host": host})
            answer = connection.getresponse()
            answer.read()
            result["statuses"][answer.status] = result["statuses"].get(answer.status, 0) + 1
            if answer.status != 200:
                result["errors"].append(f"{path}: {answer.status}")
        except (OSError, http.client.HTTPException) as error:
            result["errors"].append(f"{path}: {type(error).__name__} {error}")
            connection.close()
        result["latency_ms_max"] = max(result["latency_ms_max"], int((time.monotonic() - due) * 1000))
    result["error_count"] = len(result["errors"])
    result["errors"] = result["errors"][:5]
    print(json.dumps(result))


main()
