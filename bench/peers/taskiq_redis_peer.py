"""taskiq on Redis: a list as the broker, results beside it."""

from taskiq_redis import ListQueueBroker

from bench.peers.redis_results import URL
from bench.peers.taskiq_queue import TaskiqQueue, results

broker = ListQueueBroker(URL or "redis://127.0.0.1").with_result_backend(results())
QUEUE = TaskiqQueue(broker)
