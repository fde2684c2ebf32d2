"""Google's Cloud TPU API: credentials, project and zone, and the nodes of one zone.  Every wait has a limit.

Reference: https://cloud.google.com/tpu/docs/reference/rest/v1/projects.locations.nodes.  google-api-python-client
carries a description of this API; TPU_API_DISCOVERY_URL (which TensorFlow reads, too) names another description.
"""
from __future__ import annotations

import contextlib
import http.client
import logging
import os
import re
import urllib.request
import warnings

from configs import errors, reading, waiting
from configs.errors import UserError

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
PROJECT_VARIABLES = ("GOOGLE_CLOUD_PROJECT", "CLOUDSDK_CORE_PROJECT")
ZONE_VARIABLES = ("CLOUDSDK_COMPUTE_ZONE",)
NODE_NAME = r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?"  # regex
GONE = ("PREEMPTED", "TERMINATED", "STOPPED", "STOPPING", "DELETING", "HIDING", "HIDDEN")  # states of nodes
# What is read of a node, any of which the API may leave out.
NODE_KINDS = {**dict.fromkeys(("state", "health", "healthDescription", "tensorflowVersion", "ipAddress"),
                              (str, type(None))),
              "port": (str, int, type(None)), "networkEndpoints": (list, type(None))}
METADATA_SECONDS = 3.0
CREDENTIALS_SECONDS = 5.0
CREDENTIALS = "GOOGLE_APPLICATION_CREDENTIALS"
LOG_IN = f"run `gcloud auth application-default login`, set {CREDENTIALS} to a key file, or run on a Google Cloud VM"
MOST_ANSWERED = 1 << 20  # bytes


class ApiError(Exception):
    """A request that the API refused, in one line.  `status` is HTTP's, None where no answer came."""

    def __init__(self, message, status=None):
        super().__init__(" ".join(str(message).split())[:400])
        self.status = status

    @property
    def temporary(self):
        """Whether the same request may succeed later: no answer, too many requests, no room, a server with a fault."""
        return self.status in (None, 408, 429) or self.status >= 500


def get_directly(url, seconds, headers=None):
    """The text at `url`, asked for without a proxy, which would answer for another machine.

    Raises OSError, and ValueError where it is not UTF-8.
    """
    request = urllib.request.Request(url, headers=headers or {})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def read():
        with opener.open(request, timeout=seconds) as response:
            data = response.read(MOST_ANSWERED)
            if response.length and len(data) < MOST_ANSWERED:  # bytes that are still to come
                raise http.client.IncompleteRead(data, response.length)
            return data.decode()
    try:
        return waiting.within(seconds, read)
    except http.client.HTTPException as error:
        raise OSError(f"a bad answer ({_first_line(error):.100})")


def place(project, zone):
    """(project, zone): as given, else of the environment, else of the Google Cloud VM here.  Raises UserError."""
    return (_settle("project", project, PROJECT_VARIABLES, "project/project-id"),
            _settle("zone", zone, ZONE_VARIABLES, "instance/zone"))


def _settle(what, given, variables, path):
    """The project or zone: `given`, or from the variables of the environment, or at `path` of the metadata server."""
    text = next(filter(None, [given, *map(os.environ.get, variables)]), None)
    host = os.environ.get("GCE_METADATA_HOST") or os.environ.get("GCE_METADATA_IP") or "metadata.google.internal"
    try:
        text = text or get_directly(f"http://{host}/computeMetadata/v1/{path}", METADATA_SECONDS,
                                    {"Metadata-Flavor": "Google"}).strip().rpartition("/")[2]  # of zones/ZONE
    except (OSError, ValueError) as error:
        raise UserError(f"the {what} of the TPU is not known, and this is no Google Cloud VM, which would know it"
                        f" (metadata server: {getattr(error, 'reason', None) or error}); give --tpu_{what}, or set"
                        f" {variables[0]}")
    if not re.fullmatch(r"[\w.:-]+", text):
        raise UserError(f"{text!r} is no name of a {what}; check --tpu_{what}")
    return text


def connect(seconds, *, anonymous=False):
    """googleapiclient's service for the API, with the user's credentials and so many seconds for each answer.

    An `anonymous` one needs no credentials: its requests are shown, not sent.  Raises UserError.
    """
    warnings.filterwarnings("ignore", "Your application has authenticated using end user credentials")
    warnings.filterwarnings("ignore", category=FutureWarning, module="google")
    for name in ("google", "google_auth_httplib2", "googleapiclient"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # errors are raised, and shown in one line
    with errors.packages_from("requirements.txt"):
        import google_auth_httplib2
        import httplib2
        from googleapiclient import discovery, http
    credentials = None if anonymous else _log_in()

    def request(_, *arguments, **named):  # with a connection of its own: threads must not share httplib2's
        connection = google_auth_httplib2.AuthorizedHttp(credentials, http=httplib2.Http(timeout=seconds))
        return http.HttpRequest(connection, *arguments, **named)
    other = os.environ.get("TPU_API_DISCOVERY_URL")
    try:
        return waiting.within(seconds, lambda: discovery.build(
            "tpu", "v1", http=httplib2.Http(timeout=seconds), requestBuilder=request, cache_discovery=False,
            **({"discoveryServiceUrl": other} if other else {})))
    except Exception as error:
        raise UserError(f"the description of the Cloud TPU API cannot be read from {other or 'its package'}"
                        f" ({_first_line(error)}); check TPU_API_DISCOVERY_URL")


def _log_in():
    """The user's credentials.  Raises UserError."""
    import google.auth
    path = os.environ.get(CREDENTIALS)
    try:
        if path:
            reading.read_object(path)  # google.auth tells of files without an object by its own errors
        return waiting.within(CREDENTIALS_SECONDS, lambda: google.auth.default(scopes=[SCOPE]))[0]
    except TimeoutError:
        raise UserError(f"no Google credentials (the metadata server of Google Cloud does not answer); {LOG_IN}")
    except UserError as error:
        raise UserError(f"no Google credentials ({CREDENTIALS}: {error}); {LOG_IN}")
    except Exception as error:  # google.auth's own, and whatever it makes of a file of other contents
        # Its message points to a page of documentation; only of a bad file of credentials it says what is wrong.
        reason = "" if "were not found" in str(error) else f" ({_first_line(error)})"
        raise UserError(f"no Google credentials{reason}; {LOG_IN}")


def _first_line(error):
    return (str(error) or type(error).__name__).splitlines()[0]


class Nodes:
    """The TPU nodes of one zone."""

    def __init__(self, service, project, zone, seconds):
        self.service, self._seconds = service, seconds
        self._parent = f"projects/{project}/locations/{zone}"
        self._methods = service.projects().locations().nodes()
        self._operations = service.projects().locations().operations()

    def get(self, name):
        """The node as the API describes it, or None where there is none.  Raises ApiError."""
        try:
            node = self.send(self._methods.get(name=self._path(name)))
        except ApiError as error:
            if error.status != 404:
                raise
            return None
        try:
            reading.check_kinds(node, NODE_KINDS)
        except ValueError as error:
            raise ApiError(f"in its description of the node, {error}")
        return node

    def creation(self, name, node):
        """The request for a node.  When it was sent, `get` says READY minutes later, or None if that failed."""
        return self._methods.create(parent=self._parent, nodeId=name, body=node)

    def deletion(self, name):
        """The request for the end of a node.  When it was sent, `get` says None a minute later."""
        return self._methods.delete(name=self._path(name))

    def send(self, request):
        """Sends a request of googleapiclient and returns the answer, a dict.  Raises ApiError."""
        import httplib2
        from google.auth.exceptions import GoogleAuthError, RefreshError
        from googleapiclient.errors import HttpError
        try:
            answer = waiting.within(self._seconds, request.execute)
        except HttpError as error:
            raise ApiError(error.reason or f"HTTP status {error.status_code}", error.status_code)
        except RefreshError as error:
            raise ApiError(f"the Google credentials are refused: {error.args[0]}", 401)
        except (OSError, ValueError, http.client.HTTPException, httplib2.HttpLib2Error, GoogleAuthError) as error:
            raise ApiError(_first_line(error))
        if not isinstance(answer, dict):
            raise ApiError("the answer is no JSON object")
        return answer

    def failure(self, operation):
        """What went wrong in the operation of this name; "" where nothing did, or the API does not answer."""
        with contextlib.suppress(ApiError):
            error = self.send(self._operations.get(name=operation)).get("error")
            said = error.get("message") if isinstance(error, dict) else error
            return said if isinstance(said, str) else reading.shown(error) if error else ""
        return ""

    def _path(self, name):
        return f"{self._parent}/nodes/{name}"
