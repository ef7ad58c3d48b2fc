"""Configurations of programs that spread requests over several servers: HAProxy, nginx, and LiteLLM's proxy.

haproxy(target, ["http://box1:11435", "http://box2:11435"])

Without a key a server accepts requests for its own host alone, so such servers are asked as `localhost`. The header
that says who is behind the proxy keeps chats and documents closed that are meant for programs of the server's machine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from edgellm.errors import UsageError
from edgellm.serve.clients.environment import Target

# What a server accepts at once by default: four slots, and a queue of 64.
MOST_AT_ONCE = 68
PORT = 11434


def haproxy(target: Target, urls: Sequence[str]) -> str:
    """HAProxy 2.6 or newer: health checks, retries, and conversations that stay with a server."""
    servers = "\n".join(
        f"    server edgellm{n} {_place(url)} check inter 2s fall 2 rise 1 maxconn {MOST_AT_ONCE}{_tls(url)}"
        for n, url in enumerate(urls, 1)
    )
    host = "" if target.key else "\n    http-request set-header Host localhost"
    return f"""
# haproxy.cfg: haproxy -f haproxy.cfg, then clients use http://127.0.0.1:{PORT}
global
    # Bodies are looked into up to this size, in bytes.
    tune.bufsize 262144
    maxconn 1024

defaults
    mode http
    timeout connect 5s
    timeout client 30m
    # A slow CPU may read a long prompt for minutes before it answers.
    timeout server 30m
    timeout http-request 30s
    timeout queue 60s

frontend clients
    bind 127.0.0.1:{PORT}
    option http-buffer-request
    option forwardfor{host}
    # A conversation is known by its first question: what the server has read of it is read from its cache.
    http-request set-var(txn.role) req.body,json_query('$.messages[0].role')
    http-request set-var(txn.first) req.body,json_query('$.messages[0].content')
    http-request set-var(txn.first) req.body,json_query('$.messages[1].content') if {{ var(txn.role) -m str system }}
    default_backend servers

backend servers
    balance hash var(txn.first)
    hash-type consistent
    option httpchk GET /health
    http-check expect status 200
    # What no server has begun to answer goes to another one.
    retry-on conn-failure empty-response 503
    retries 2
    option redispatch 1
{servers}
"""


def nginx(target: Target, urls: Sequence[str]) -> str:
    """nginx: streams without buffers, retries, and a server that failed left out for five seconds."""
    if any(url.startswith("https:") for url in urls):
        why = "nginx would not check the servers' certificates"
        raise UsageError("nginx is set up for http:// servers only", why=why, hint="edgellm connect haproxy")
    servers = "\n".join(f"        server {_place(url)} max_fails=1 fail_timeout=5s;" for url in urls)
    host = "$host" if target.key else "localhost"
    return f"""
# nginx.conf: nginx -p "$PWD" -c nginx.conf, then clients use http://127.0.0.1:{PORT}
worker_processes 1;
daemon off;
pid nginx-edgellm.pid;
error_log stderr;
events {{ worker_connections 2048; }}

http {{
    # Below the directory after -p, where any user may write.
    client_body_temp_path nginx-temp;
    proxy_temp_path nginx-temp;
    fastcgi_temp_path nginx-temp;
    uwsgi_temp_path nginx-temp;
    scgi_temp_path nginx-temp;

    upstream edgellm {{
        # The same client comes to the same server, which has read what that client said before.
        hash $remote_addr$http_authorization consistent;
{servers}
    }}

    server {{
        listen 127.0.0.1:{PORT};
        access_log off;
        client_max_body_size 32m;

        location / {{
            proxy_pass http://edgellm;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host {host};
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            # Tokens are handed on as they come.
            proxy_buffering off;
            proxy_connect_timeout 5s;
            # A slow CPU may read a long prompt for minutes before it answers.
            proxy_read_timeout 30m;
            # What no server has begun to answer goes to another one.
            proxy_next_upstream error timeout http_429 http_503 non_idempotent;
            proxy_next_upstream_tries 3;
        }}
    }}
}}
"""


def litellm_proxy(target: Target, urls: Sequence[str]) -> str:
    """LiteLLM's proxy: one name for the model on all servers, the least busy of them, retries and cool-downs."""
    models = "\n".join(
        f"""  - model_name: {json.dumps(target.model)}
    litellm_params:
      model: {json.dumps(f"openai/{target.model}")}
      api_base: {json.dumps(f"{url}/v1")}
      api_key: {json.dumps(target.some_key)}
      timeout: 1800
      stream_timeout: 1800
    model_info:
      mode: chat
      max_input_tokens: {target.n_ctx}
      max_output_tokens: {target.n_answer}"""
        for url in urls
    )
    return f"""
# config.yaml: pip install 'litellm[proxy]', then, with a key of at least 16 letters for its clients,
#   LITELLM_MASTER_KEY="sk-$(openssl rand -hex 16)" litellm --config config.yaml --host 127.0.0.1 --port {PORT}
# LiteLLM does not ask the servers for their contexts: these are the ones that edgellm knows of.
model_list:
{models}

router_settings:
  routing_strategy: least-busy
  num_retries: 2
  allowed_fails: 1
  cooldown_time: 5

litellm_settings:
  # A request with a field that a server refuses is refused here too, instead of being changed.
  drop_params: false

general_settings:
  master_key: os.environ/LITELLM_MASTER_KEY
  background_health_checks: true
  health_check_interval: 30
"""


BALANCERS: dict[str, Callable[[Target, Sequence[str]], str]] = {
    "haproxy": haproxy,
    "nginx": nginx,
    "litellm-proxy": litellm_proxy,
}


def _place(url: str) -> str:
    return urlsplit(url).netloc


def _tls(url: str) -> str:
    return " ssl verify required ca-file @system-ca" if url.startswith("https:") else ""
