# SPDX-License-Identifier: Apache-2.0
"""Uses an endpoint with the package etcd3 of Python: keys, watches, leases, locks, transactions, members, users.

The environment has ENDPOINT, a host and a port; for TLS, CACERT, CERT and KEY; and USER_NAME and PASSWORD if users are checked.
"""

import os
import platform
import threading

import etcd3

env = os.environ
host, port = env["ENDPOINT"].split("://")[-1].rsplit(":", 1)
client = etcd3.client(
    host=host, port=int(port), timeout=10, user=env.get("USER_NAME"), password=env.get("PASSWORD"),
    ca_cert=env.get("CACERT"), cert_cert=env.get("CERT"), cert_key=env.get("KEY"),
)


def value(key):
    return client.get(key)[0]


# Keys.
client.put("py/a", "1")
client.put("py/b", "2")
assert value("py/a") == b"1"
assert value("py/none") is None
assert [(m.key, v) for v, m in client.get_prefix("py/", sort_order="ascend")] == [(b"py/a", b"1"), (b"py/b", b"2")]
assert client.put("py/a", "1", prev_kv=True).prev_kv.value == b"1"

# A watch, and a deletion.
events, cancel = client.watch_prefix("py/")
threading.Timer(0.2, lambda: (client.put("py/a", "3"), client.delete("py/b"))).start()
first, second = next(events), next(events)
cancel()
assert isinstance(first, etcd3.events.PutEvent) and (first.key, first.value) == (b"py/a", b"3")
assert isinstance(second, etcd3.events.DeleteEvent) and second.key == b"py/b"

# A lease.
lease = client.lease(60)
client.put("py/leased", "v", lease)
assert lease.granted_ttl == 60 and lease.keys == [b"py/leased"]
assert lease.refresh()[0].TTL == 60
lease.revoke()
assert value("py/leased") is None

# A transaction takes one branch.
def branch(expected):
    t = client.transactions
    return client.transaction(compare=[t.value("py/a") == expected], success=[t.put("py/a", "4")], failure=[t.get("py/a")])[0]


assert branch("3") and not branch("3")
assert client.replace("py/a", "4", "5") and value("py/a") == b"5"
assert client.put_if_not_exists("py/new", "v") and not client.put_if_not_exists("py/new", "v")

# A lock excludes.
lock = client.lock("py", ttl=60)
assert lock.acquire(timeout=5) and lock.is_acquired()
assert not client.put_if_not_exists(lock.key, "other")  # a second acquire would wait with a library that Debian has too new
assert lock.release()
with client.lock("py", ttl=60) as again:
    assert again.is_acquired()

# Members and the server.
assert [m.name for m in client.members]
assert client.status().leader.name
assert client.compact(client.get("py/a")[1].mod_revision) is None

print("ok", etcd3.__version__, platform.python_version())
