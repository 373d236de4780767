"""An HTTP server around one engine: OpenAI's chat API, Drift's own routes, and a page (docs/server.md).

It needs the extra: `pip install 'drift-edge[server]'`.
"""

from drift_edge.server.access import Access as Access
from drift_edge.server.app import create_app as create_app
from drift_edge.server.defaults import Defaults as Defaults
