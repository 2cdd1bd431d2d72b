"""The Outbox page inside Flower: partitions, topics, what failed, and what can be done about it.

`adapter` alone knows Flower; `handlers` speak HTTP; what they show is looked at in threads.
"""
