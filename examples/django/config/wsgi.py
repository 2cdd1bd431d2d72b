"""The application for a WSGI server; its events carry the request's id and trace."""

from django.core.wsgi import get_wsgi_application

from postroom.contrib.requests import WSGICarrier

application = WSGICarrier(get_wsgi_application())
