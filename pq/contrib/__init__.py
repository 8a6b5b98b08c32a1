"""What other queues' programs need to run on pq. The core imports nothing of it."""
