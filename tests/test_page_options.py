"""What the page's server refuses to do before it listens."""

import socket

import pytest
import typer
from typer.testing import CliRunner

from preference_data.accounts import Accounts
from preference_data.store import Store
from ui.__main__ import DATABASE, serve

OWN = ("--name", "annotate.example.org")


@pytest.fixture
def said(tmp_path, monkeypatch):
    """Runs the server's command on a store with or without accounts; what it answers on one line."""

    def run(*words, accounts=False):
        url = f"sqlite:///{tmp_path}/p.db"
        monkeypatch.setenv(DATABASE, url)
        with Store.open(url) as store:
            if accounts and not Accounts(store.engine).any():
                Accounts(store.engine).create("boss", "four words nobody guesses", "admin", by="test")
        app = typer.Typer()
        app.command()(serve)
        result = CliRunner(env={"COLUMNS": "400"}).invoke(app, [*words, "--port", "0"])
        assert result.exit_code == 2
        return result.output

    return run


def test_without_accounts_it_is_for_this_machine_alone(said):
    for words in (("--host", "0.0.0.0"), ("--host", "::"), ("--proxied", *OWN)):
        assert "there are no accounts, so this page is for this machine alone" in said(*words)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "annotate.example.org"])
def test_passwords_do_not_cross_a_network_in_the_clear(said, host):
    assert "passwords would cross the network in the clear" in said("--host", host, accounts=True)


def test_behind_a_proxy_the_name_browsers_use_must_be_known(said):
    assert "--name is missing" in said("--proxied", accounts=True)


def test_an_identity_provider_is_asked_over_https_and_under_a_name_it_knows(said):
    plain = said("--openid", "http://login.example.org", "--openid-client", "page", accounts=True)
    assert "expected an address with https://" in plain
    assert "--openid-client is missing" in said("--openid", "https://login.example.org", accounts=True)


def test_a_taken_port_is_named_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv(DATABASE, f"sqlite:///{tmp_path}/p.db")
    app = typer.Typer()
    app.command()(serve)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = CliRunner(env={"COLUMNS": "400"}).invoke(app, ["--port", str(taken.getsockname()[1])])
    assert result.exit_code == 2
    assert "give another port, or 0 for a free one" in result.output
