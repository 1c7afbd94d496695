"""taskiq on Kafka, results in Redis."""

import os

from aiokafka.partitioner import DefaultPartitioner
from taskiq_aio_kafka import AioKafkaBroker

from bench.peers.taskiq_queue import TaskiqQueue, results

broker = AioKafkaBroker(bootstrap_servers=os.environ.get("KAFKA_BOOTSTRAP_SERVERS", ""), kafka_topic="bench-taskiq")
broker.configure_producer(partitioner=DefaultPartitioner(), acks="all")  # its own is one that aiokafka cannot call
broker = broker.with_result_backend(results())
QUEUE = TaskiqQueue(broker)
