"""TPUs that are not there: what an estimator is told of their cores, and the program that it would send to them."""
import contextlib
from unittest import mock

from tensorflow.python.client.session import _DeviceAttributes
from tensorflow.python.tpu import tpu_system_metadata
from tensorflow.python.tpu.tpu_system_metadata import TPUSystemMetadata


@contextlib.contextmanager
def a_tpu_of(cores, hosts):
    """In here estimators find so many cores, the same number on each host, wherever they ask."""
    worker = "/job:worker/replica:0/task:{}/device:{}:{}"
    devices = [_DeviceAttributes(worker.format(host, kind, i), kind, 0, 0) for host in range(hosts)
               for kind, count in (("CPU", 1), ("TPU_SYSTEM", 1), ("TPU", cores // hosts)) for i in range(count)]
    found = TPUSystemMetadata(num_cores=cores, num_hosts=hosts, num_of_cores_per_host=cores // hosts, topology=None,
                              devices=tuple(devices))
    with mock.patch.object(tpu_system_metadata, "_query_tpu_system_metadata", lambda *_, **__: found):
        yield
