"""Settings of the questions to a model behind an OpenAI-compatible chat endpoint."""

from __future__ import annotations

from dataclasses import dataclass

from robopref.configs.ranges import Count, NotNegative, Positive


@dataclass(frozen=True)
class ChatConfig:
    """A model behind an OpenAI-compatible chat endpoint: the one that rl-vlm-f shows pictures, or PROF's writer."""

    model: str | None = None
    """Its name at the endpoint; for rl-vlm-f it must read pictures."""
    base_url: str = "https://api.openai.com/v1"
    """What comes before /chat/completions."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; a server of your own that asks for none takes any."""
    temperature: NotNegative | None = 0.0
    """None leaves it to the endpoint, for models that refuse to be told."""
    stream: bool = False
    """Take the answer as it is written, piece by piece: long ones then do not run into `timeout`."""
    longest: Count | None = None
    """Most tokens of an answer; None leaves it to the endpoint."""
    timeout: Positive = 120.0
    """Seconds without a byte after which a request is given up."""
    total: Positive | None = None
    """Seconds in which one answer must be there, all its requests and the waits between them; None: 30 times `timeout`, which
    by default is an hour.  A server that sends a byte now and then never runs into `timeout`."""
    attempts: Count = 6
    """Requests for one answer: it is asked again after 408, 429, 5xx, a cut connection, silence or a reply that is no answer."""
