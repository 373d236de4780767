"""The exception tree. Every error drift-edge raises on purpose is a `DriftError`.

```
DriftError                       exit code 1   the root
├── UsageError (ValueError)                2   an argument, flag or setting is out of range or unknown
├── ModelError                             3   a model file or pair cannot be used
│   ├── ModelFileError                     3   missing, truncated, hostile or not GGUF
│   ├── TokenizerMismatchError             3   the LLM and the sLM do not share a tokenizer
│   └── ChatTemplateError                  3   the model's template is broken, too large or too slow
├── WeightsError                           3   a weights file cannot be read or is malformed
├── PreferencesError                       3   a file of preference pairs cannot be read or is malformed
├── ProfileError                           3   a profile or its journal cannot be used
│   ├── ProfileCorruptError                3   damaged; nothing of it is taken for empty
│   ├── ProfileVersionError                3   written by a newer drift-edge
│   ├── ProfileMismatchError               3   made with another sLM or other prompts
│   └── ProfileBusyError                   1   another process keeps it locked
├── HubError                               1   the hub of models cannot be reached, or refuses
├── ContextOverflowError                   2   the prompt does not fit the context
├── RefusedError                           1   the guard let no answer pass
├── DecodeError                            1   llama.cpp failed while decoding
├── KernelUnavailableError                 1   the C kernel was asked for and cannot be loaded
└── ClosedError                            1   the engine has been closed
```

A message says what was found, what was expected, where, and what to do about it.
"""

from __future__ import annotations


class DriftError(Exception):
    """Root of every error drift-edge raises on purpose."""

    exit_code = 1


class UsageError(DriftError, ValueError):
    """An argument, flag or setting is unknown or out of range."""

    exit_code = 2


class ModelError(DriftError):
    """A model file, or the pair of them, cannot be used."""

    exit_code = 3


class ModelFileError(ModelError):
    """The file is missing, empty, truncated, hostile, or not a GGUF model."""


class TokenizerMismatchError(ModelError):
    """The two models do not map the same ids to the same tokens."""


class ChatTemplateError(ModelError):
    """The chat template is invalid, too large, or takes too long."""


class WeightsError(DriftError):
    """A weights file cannot be read, or its content is not `{name: number}`."""

    exit_code = 3


class PreferencesError(DriftError):
    """A file of preference pairs cannot be read, or a pair in it is malformed."""

    exit_code = 3


class ProfileError(DriftError):
    """A profile, or the journal beside it, cannot be read or written."""

    exit_code = 3


class ProfileCorruptError(ProfileError):
    """The file is damaged. It is left as it is, and never treated as empty."""


class ProfileVersionError(ProfileError):
    """The file was written by a newer drift-edge. It is left as it is."""


class ProfileMismatchError(ProfileError):
    """The profile was made with another sLM or other prompts, whose numbers mean something else."""


class ProfileBusyError(ProfileError):
    """Another process kept the profile locked for longer than was waited."""

    exit_code = 1


class HubError(DriftError):
    """The hub of models cannot be reached, refuses, or sends what it should not."""


class ContextOverflowError(DriftError):
    """The conversation does not fit the context, and dropping turns was not asked for or not enough."""

    exit_code = 2


class RefusedError(DriftError):
    """The guard rejected every answer that was drawn."""


class DecodeError(DriftError):
    """llama.cpp reported a failure while decoding."""


class KernelUnavailableError(DriftError):
    """`DRIFT_EDGE_KERNEL=c` was asked for, but the C kernel cannot be loaded."""


class ClosedError(DriftError):
    """The engine, model or context has already been closed."""
