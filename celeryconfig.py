"""Celery's configuration; what differs between deployments is read from POSTROOM_*."""

from postroom import ConfigurationError, settings
from postroom.celery import redis

try:
    _settings = settings.load()
except ConfigurationError as error:
    raise SystemExit(str(error)) from None

_redis = redis.configuration(_settings)
broker_url = _redis.broker_url
result_backend = _redis.result_backend
imports = ("tasks.medicines", "workers.consumer")

task_serializer = result_serializer = event_serializer = "json"
accept_content = ["json"]
enable_utc = True
timezone = "UTC"
result_expires = 24 * 3600
task_track_started = True
worker_send_task_events = True
task_send_sent_event = True
worker_prefetch_multiplier = 1
worker_hijack_root_logger = True

# A Redis that is away is waited for, for ever, and one that hangs is noticed.
broker_connection_retry_on_startup = True
broker_connection_max_retries = None
broker_transport_options = {
    **_redis.transport_options,
    "socket_timeout": 5.0,
    "socket_connect_timeout": 5.0,
    "socket_keepalive": True,
    "visibility_timeout": 3600,
}
result_backend_transport_options = {**_redis.transport_options, "visibility_timeout": 3600}
redis_socket_timeout = 5.0
redis_socket_connect_timeout = 5.0
