"""Chat templates: harmful ones end in an error and soon, real ones render as worked out by hand."""

from __future__ import annotations

import sys
import time
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_edge.errors import ChatTemplateError
from drift_edge.llama.template import CHATML, MAX_OUTPUT, PLAIN, ChatTemplate, Message
from tests import tiny

MOST = 5.0  # seconds of the processor

TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "Tea?"},
]


def render(source: str, messages: list[Message] | None = None, **tokens: str) -> str:
    return ChatTemplate(source, **tokens).render(TALK if messages is None else messages)


def doubling(start: str, step: str, times: int = 60, end: str = "{{ a }}") -> str:
    return f"{{% set a = {start} %}}" + f"{{% set a = {step} %}}" * times + end


LOOP = "{% for i in range(100000) %}"
END = "{% endfor %}"
HOSTILE = {
    "10 MB": "x" * 10_000_000,
    "10 MB of tags": "{{ a }}" * 1_500_000,
    "not Jinja": "{% for %}",
    "unknown tag": "{% exec 'ls' %}",
    "unclosed": "{% for m in messages %}",
    "deeply nested source": "{% if a %}" * 5_000 + "{% endif %}" * 5_000,
    "deep brackets": "{{ " + "(" * 50_000 + ")" * 50_000 + " }}",
    "a long sum": "{{ a" + "+a" * 100_000 + " }}",
    "nested endless loops": LOOP * 4 + "{% set x = 1 %}" + END * 4,
    "loops in one expression": LOOP + "{{ range(100000)|list|length }}" + END,
    "nested loops without a call": "{% set r = range(100000)|list %}{% for a in r %}{% for b in r %}{% set x = 1 %}"
    "{% endfor %}{% endfor %}",
    "macro that calls itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "macro that calls itself twice": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
    "{{ f(200) }}",
    "range of a billion": "{% for i in range(10**9) %}{% endfor %}",
    "range of a billion, written out": "{{ range(1000000000)|list }}",
    "doubling by +": doubling("'xx'", "a + a"),
    "doubling by ~": doubling("'xx'", "a ~ a"),
    "doubling by *": doubling("'xx'", "a * 100"),
    "doubling by replace": doubling("'xxxx'", "a.replace('x', a)"),
    "doubling by the filter replace": doubling("'xxxx'", "a|replace('x', a)"),
    "doubling by join": doubling("'xxxx'", "a.join(a)"),
    "doubling by the filter join": doubling("'xxxx'", "a|join(a)"),
    "doubling by join of a list": doubling("'xx'", "''.join([a, a])"),
    "doubling by format": doubling("'xx'", "'{}{}'.format(a, a)"),
    "doubling by a block": doubling("'xx'", "a") + "{% set a %}{{ a }}{{ a }}{% endset %}" * 40 + "{{ a }}",
    "doubling by a macro": "{% macro f(x) %}{{ x }}{{ x }}{% endmacro %}" + doubling("'xx'", "f(a)"),
    "doubling lists by +": doubling("[1]", "a + a"),
    "lists that share their parts": doubling("[1]", "[a, a]"),
    "tuples that share their parts": doubling("(1, 2)", "(a, a)"),
    "dicts that share their parts": doubling("{}", "{1: a, 2: a}"),
    "shared parts, compared": doubling("[1]", "[a, a]", end="{% set b = [a] %}{{ a == b }}"),
    "shared parts by the arguments of a macro": "{% macro f(n) %}{% if n %}{{ f(n - 1, varargs, varargs) }}"
    "{% else %}{{ varargs }}{% endif %}{% endmacro %}{{ f(60, 1) }}",
    "shared parts by a namespace": "{% set n = namespace(a=1) %}"
    + "{% set n = namespace(a=n, b=n) %}" * 60
    + "{{ n }}",
    "a wide format": "{{ '{:1000000000d}'.format(1) }}",
    "a wide format by format_map": "{{ '{a:1000000000d}'.format_map({'a': 1}) }}",
    "a wide %": "{{ '%1000000000d' % 1 }}",
    "the filter format": "{{ '%1000000000d'|format(1) }}",
    "center": "{{ 'a'.center(1000000000) }}",
    "ljust, again and again": doubling("'a'", "a.ljust(1000000) + a"),
    "expandtabs": "{{ ('\t' ~ '\t').expandtabs(1000000000) }}",
    "indent": "{{ 'a\nb'|indent(1000000000) }}",
    "tojson, indented": "{{ [[1]]|tojson(indent=1000000) }}",
    "wordwrap": "{{ ('a ' * 10)|wordwrap(1) }}",
    "lipsum": "{{ lipsum(n=1000000) }}",
    "strftime_now with a width": "{{ strftime_now('%999999999d') }}",
    "powers": "{{ 9 ** 999999 }}",
    "powers of powers": doubling("1000000", "a ** 60"),
    "a number of 200,000 digits": "{{ " + "9" * 200_000 + " }}",
    "output": LOOP + "x" * 1000 + END,
    "output by recursion": "{% for x in [[[[[[1]]]]]] recursive %}{{ 'x' }}{% if x is iterable %}{{ loop(x) * 9 }}"
    "{% endif %}{% endfor %}",
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "classes by a filter": "{{ ''|attr('__class__')|attr('__mro__') }}",
    "classes by a subscript": "{{ ''['__class__']['__mro__'] }}",
    "classes by format": "{{ '{0.__class__.__mro__}'.format('') }}",
    "classes by map": "{{ ['']|map(attribute='__class__')|list|first|string + ''.__class__.x }}",
    "globals of a function": "{{ raise_exception.__globals__.items() }}",
    "globals of a macro": "{% macro f() %}{% endmacro %}{{ f.__init__.__globals__ }}",
    "the module of a cycler": "{{ cycler.__init__.__globals__.os.system('true') }}",
    "self": "{{ self.__init__.__globals__ }}",
    "import": "{% import 'os' as os %}",
    "include": "{% include '/etc/passwd' %}",
    "extends": "{% extends 'x' %}",
    "changing the messages": "{{ messages.clear() }}",
    "raise_exception": "{{ raise_exception('not today') }}",
    "unknown filter": "{{ 'a'|pprint }}",
    "division by zero": "{{ 1 // 0 }}",
    "an undefined function": "{{ nothing() }}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_harmful_template_is_an_error_and_soon(name: str) -> None:
    start = time.process_time()
    with pytest.raises(ChatTemplateError) as caught:
        ChatTemplate(HOSTILE[name], where="evil.gguf").render(TALK)
    assert time.process_time() - start < MOST
    assert not isinstance(caught.value.__cause__, MemoryError)  # too late: the memory was there to be had
    said = str(caught.value)
    assert said.startswith("evil.gguf: its chat template")
    assert len(said) < 500
    assert said.isprintable()


def test_what_raise_exception_says_reaches_the_user_without_control_characters() -> None:
    with pytest.raises(ChatTemplateError, match=r"failed: roles must  \[31malternate$"):
        render("{{ raise_exception('roles must \x1b[31malternate') }}")
    with pytest.raises(ChatTemplateError) as caught:
        render("{{ raise_exception('x' * 1) }}{{ raise_exception(messages) }}")
    assert len(str(caught.value)) < 500


def test_unsafe_attributes_show_nothing() -> None:
    # jinja2 gives an undefined value for these; asked for more it is an error, printed alone it is empty or an error.
    for source in ("{{ ''.__class__ }}", "{{ messages.append }}", "{{ ''.expandtabs }}"):
        try:
            shown = render(source)
        except ChatTemplateError:
            continue
        assert shown == ""


def test_the_tracer_before_is_put_back() -> None:
    def tracer(*_: object) -> None:
        return None

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        render(CHATML)
        with pytest.raises(ChatTemplateError):
            render(HOSTILE["nested endless loops"])
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)


def test_long_messages_are_not_taken_for_a_bomb() -> None:
    long = "word " * (MAX_OUTPUT // 4)
    out = render("{% for m in messages %}{{ m.content }}{% endfor %}", [{"role": "user", "content": long}])
    assert out == long


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.text(alphabet="{}%#-+~|'\"[]().,ab01 \n=forinmesdt", max_size=60))
def test_random_source_renders_or_is_an_error(source: str) -> None:
    with suppress(ChatTemplateError):
        assert isinstance(render(source), str)


# -- templates as models have them, rendered by hand


def test_fallback_chatml() -> None:
    assert render(CHATML) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\nTea?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_fallback_plain() -> None:
    assert render(PLAIN) == "Be kind.\n\nUser: Hi\nAssistant: Hello!\nUser: Tea?\nAssistant:"


def test_no_generation_prompt() -> None:
    assert ChatTemplate(PLAIN).render(TALK[1:2], add_generation_prompt=False) == "User: Hi\n"


LLAMA_3_LIKE = """{{- bos_token }}
{%- if strftime_now is defined %}
    {%- set date_string = strftime_now("%d %b %Y") %}
{%- else %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{#- The system message comes first, by itself. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none and tools is defined %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- system_message + "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim }}
        {{- '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {{- raise_exception("This model only supports single tool-calls at once!") }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""


def test_llama_3_like() -> None:
    # `tools is not none and tools is defined` is false: undefined is not None, but not defined either.
    assert render(LLAMA_3_LIKE, bos="<|begin_of_text|>") == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello!<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nTea?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


GEMMA_LIKE = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}"
    "{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)


def test_gemma_like() -> None:
    assert render(GEMMA_LIKE, TALK[1:], bos="<bos>") == (
        "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHello!<end_of_turn>\n"
        "<start_of_turn>user\nTea?<end_of_turn>\n<start_of_turn>model\n"
    )
    with pytest.raises(ChatTemplateError, match="System role not supported"):
        render(GEMMA_LIKE)
    with pytest.raises(ChatTemplateError, match="must alternate"):
        render(GEMMA_LIKE, TALK[2:])


MISTRAL_LIKE = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set ns = namespace(index=0) %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
        {{- raise_exception("After the optional system message, conversation roles must alternate") }}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token }}
    {%- endif %}
{%- endfor %}
"""


def test_mistral_like() -> None:
    assert render(MISTRAL_LIKE, bos="<s>", eos="</s>") == (
        "<s>[INST] Hi[/INST] Hello!</s>[INST] Be kind.\n\nTea?[/INST]"
    )


QWEN_LIKE = """{%- for message in messages %}
{%- if message.content is string %}{%- set content = message.content %}{%- else %}{%- set content = '' %}{%- endif %}
{%- if message.role == 'assistant' %}
    {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
{%- endif %}
{{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}"""


def test_qwen_like_drops_the_thoughts() -> None:
    talk = [*TALK[1:2], {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHello!"}, *TALK[3:]]
    assert render(QWEN_LIKE, talk) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\nTea?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_training_marks_and_other_idioms() -> None:
    source = (
        "{% for m in messages if m.role != 'system' %}{% if loop.index > 2 %}{% break %}{% endif %}"
        "{% generation %}{{ m.content|upper }}{% endgeneration %}{{ '%d' if false else '-' }}{% endfor %}"
        "{{ ', '.join(['a', 'b']) }}{{ [3, 1]|sort|join('<') }}{{ {'b': '<&>'}|tojson }}{{ 'a\nb'|indent(2) }}"
        "{{ 'x-y'.replace('-', '+') }}{{ '<{}>'.format('k') }}"
        "{{ messages|selectattr('role', 'equalto', 'user')|list|length }}"
    )
    assert render(source) == 'HI-HELLO!-a, b1<3{"b": "<&>"}a\n  bx+y<k>2'


def test_tiny_templates_render() -> None:
    assert render(tiny.TEMPLATE) == (
        "<|system|>Be kind.<|end|><|user|>Hi<|end|><|assistant|>Hello!<|end|><|user|>Tea?<|end|><|assistant|>"
    )
    assert render(tiny.NO_SYSTEM, TALK[1:2], bos="<s>") == "<s><|user|>Hi<|end|><|assistant|>"
