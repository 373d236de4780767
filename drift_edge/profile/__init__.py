"""Profile: what was learned of one person, in one local JSON file, and the journal of choices beside it
(docs/profile.md)."""

from drift_edge.profile.file import SLM as SLM
from drift_edge.profile.file import Snapshot as Snapshot
from drift_edge.profile.file import Weight as Weight
from drift_edge.profile.profile import Change as Change
from drift_edge.profile.profile import Profile as Profile
from drift_edge.profile.settings import Settings as Settings
from drift_edge.profile.tally import active_of as active_of
from drift_edge.profile.tally import weigh as weigh
from drift_edge.profile.view import Choice as Choice
from drift_edge.profile.view import profile_path as profile_path
from drift_edge.weights import DEFAULT_BLOCKED as DEFAULT_BLOCKED
