"""The second rabbitmqadmin, a program of Rust: every command that it has."""

import json
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pika
from cases import AMQP_URL, HTTP_PORT, PASS, USER, at_end, case, equal, eventually, main

ADMIN = Path(sys.prefix).parent / "rust" / "bin" / "rabbitmqadmin"
HOME = tempfile.TemporaryDirectory(prefix="rabbitmqadmin-")
# Features of RabbitMQ's commercial edition, one that the program announces and does not know, and
# one in which it panics before it asks anything (`definitions import` is the same and works).
NOT_ASKED = {"tanzu sds", "tanzu wsr", "health_check deprecated_features_in_use",
             "import definitions"}
NOT_FOUND = 65
asked = set()

at_end(HOME.cleanup)


def run(words, stdin=None, login=(USER, PASS)):
    options = ["-H", "127.0.0.1", "-P", str(HTTP_PORT), "-u", login[0], "-p", login[1]]
    return subprocess.run([ADMIN, *options, *words], input=stdin, capture_output=True,
                          text=True, timeout=60, env={"HOME": HOME.name}, cwd=HOME.name)


def admin(line, says="", *, vhost="/", code=0, login=(USER, PASS), stdin=None):
    """Runs one command, whose first two words are its name."""
    words = shlex.split(line)
    asked.add(" ".join(words[:2]))
    done = run(["--non-interactive", "--vhost", vhost, *words], stdin, login)
    told = done.stdout + done.stderr
    if done.returncode != code or says not in told:
        raise AssertionError(f"`{line}` ends with {done.returncode}, expected {code} and "
                             f"`{says}`: {told}")
    return told


def rows(line, *columns, vhost="/"):
    """The lines of a table that hold all these words."""
    table = admin(line, vhost=vhost).splitlines()
    return [row for row in table if all(re.search(rf"(^|\s){re.escape(one)}([\s,]|$)", row)
                                        for one in columns)]


def one_row(line, *columns, vhost="/"):
    equal(len(rows(line, *columns, vhost=vhost)), 1, f"rows of `{line}` with {columns}")


def no_row(line, *columns, vhost="/"):
    equal(len(rows(line, *columns, vhost=vhost)), 0, f"rows of `{line}` with {columns}")


@case
def what_it_tells_without_a_broker():
    words = run(["--version"]).stdout.split()
    equal(words[0], "rabbitmqadmin")
    for shell in ["bash", "zsh", "fish", "elvish", "nushell"]:
        admin(f"shell completions --shell {shell}", "rabbitmqadmin")
    admin("passwords salt_and_hash secret", "password hash")
    admin("show endpoint", str(HTTP_PORT))


@case
def a_node_of_its_configuration_file_is_used():
    config = f"{HOME.name}/admin.conf"

    def configured(line, says=""):
        words = shlex.split(line)
        asked.add(" ".join(words[:2]))
        done = subprocess.run([ADMIN, "--config", config, *words], capture_output=True, text=True,
                              timeout=60, env={"HOME": HOME.name})
        equal((done.returncode, says in done.stdout), (0, True), done.stdout + done.stderr)

    configured(f"config_file add_node --node ours --host 127.0.0.1 --port {HTTP_PORT} "
               f"--username {USER} --password {PASS} --scheme http --create-file-if-missing")
    configured("config_file show_path", config)
    configured("config_file show", "ours")
    configured("--node ours show overview", "Product name")
    configured("config_file update_node --node ours --vhost other")
    configured("config_file delete_node --node ours")


@case
def an_overview_and_the_node():
    told = admin("show overview")
    for word in ["PolyMQ", "4.1.0", "Messages (total)"]:
        equal(word in told, True, told)
    admin("show churn", "Client connections opened")
    node = admin("list nodes").splitlines()[0].split()[0]
    for one in ["nodes list", "list nodes"]:
        one_row(one, node, "4.1.0")
    for group in ["show", "nodes"]:
        admin(f"{group} memory_breakdown_in_bytes --node {node}", "Total (RSS)")
        admin(f"{group} memory_breakdown_in_percent --node {node}", "total")
    admin("nodes memory_breakdown_in_bytes --node nobody", code=NOT_FOUND)
    admin("plugins list_all", "rabbitmq_management")
    admin(f"plugins list_on_node --node {node}", "rabbitmq_management")
    admin(f"auth_attempts stats --node {node}", "amqp")
    admin("feature_flags list")
    admin("feature_flags enable --name any")
    admin("feature_flags enable_all")
    for one in ["deprecated_features list", "deprecated_features list_used", "list feature_flags",
                "list deprecated_features", "list deprecated_features_in_use"]:
        admin(one)
    admin("queues rebalance")
    admin("rebalance queues")


@case
def health():
    admin("health_check local_alarms", "passed")
    admin("health_check cluster_wide_alarms", "passed")
    admin("health_check node_is_quorum_critical", "passed")
    admin("health_check protocol_listener --protocol amqp", "passed")
    admin("health_check protocol_listener --protocol nothing", code=69)
    admin("health_check port_listener --port 1", code=69)


@case
def wrong_credentials_and_too_few_rights():
    admin("list queues", "Login failed", code=65, login=(USER, "wrong"))
    admin("declare user --name watcher --password watcher --tags monitoring")
    admin("list nodes", login=("watcher", "watcher"))
    admin("list users", code=65, login=("watcher", "watcher"))
    admin("delete user --name watcher")


@case
def virtual_hosts():
    for group in [("declare vhost", "delete vhost"), ("vhosts declare", "vhosts delete")]:
        admin(f"{group[0]} --name v1 --description 'of tests' --default-queue-type quorum "
              "--tracing")
        one_row("vhosts list", "v1", "quorum")
        one_row("list vhosts", "v1")
        admin("vhosts enable_deletion_protection --name v1")
        admin(f"{group[1]} --name v1", code=NOT_FOUND)
        admin("vhosts disable_deletion_protection --name v1")
        admin(f"{group[1]} --name v1")
        eventually(lambda: not rows("list vhosts", "v1"), "v1 is gone")
        admin(f"{group[1]} --name v1", code=NOT_FOUND)
        admin(f"{group[1]} --name v1 --idempotently")
    for one in ["many-1", "many-2"]:
        admin(f"vhosts declare --name {one}")
    admin("vhosts delete_multiple --name-pattern ^many- --dry-run", "many-1")
    admin("vhosts delete_multiple --name-pattern ^many- --approve")
    eventually(lambda: not rows("list vhosts", "many-1"), "they are gone")


@case
def users_and_permissions():
    admin("declare user --name ann --password secret --tags management")
    admin("users declare --name bob --password secret --hashing-algorithm SHA512")
    hashed = admin("passwords salt_and_hash secret")
    hashed = re.search(r"[A-Za-z0-9+/]{40,}={0,2}", hashed)[0]
    admin(f"declare user --name cyd --password-hash {hashed} --tags administrator")
    for one in ["list users", "users list"]:
        one_row(one, "ann", "management")
    one_row("list users --page 1 --page-size 500", "bob")
    admin("show overview", login=("cyd", "secret"))
    admin("declare permissions --username ann --configure ^a --read .* --write ''")
    admin("permissions declare --username bob --configure .* --read .* --write .*")
    for one in ["list permissions", "permissions list", "users permissions"]:
        one_row(one, "ann", "^a")
    admin("list queues", login=("ann", "secret"))
    for one in ["declare user_limit", "user_limits declare"]:
        admin(f"{one} --username ann --name max-connections --value 7")
        for listed in ["list user_limits", "users limits", "user_limits list"]:
            one_row(listed, "ann", "7")
        one_row("user_limits list --username ann", "ann", "7")
        admin(f"{'delete user_limit' if one[0] == 'd' else 'user_limits delete'} "
              "--username ann --name max-connections")
        no_row("list user_limits", "ann", "7")
    admin("declare permissions --username nobody --configure .* --read .* --write .*", code=65)
    admin("delete permissions --username ann")
    admin("permissions delete --username bob")
    admin("permissions delete --username bob --idempotently")
    no_row("list permissions", "ann")
    admin("delete user --name ann")
    admin("users delete --name bob")
    admin("users delete --name cyd")
    admin("delete user --name ann", code=NOT_FOUND)
    admin("delete user --name ann --idempotently")


@case
def exchanges_queues_and_bindings():
    admin("declare vhost --name v2")
    here = {"vhost": "v2"}
    for declare, delete, bind, unbind in [
        ("declare exchange", "delete exchange", "declare binding", "delete binding"),
        ("exchanges declare", "exchanges delete", "exchanges bind", "exchanges unbind"),
        ("exchanges declare", "exchanges delete", "bindings declare", "bindings delete"),
    ]:
        admin(f"{declare} --name x --type topic --durable true", **here)
        admin(f"""{declare} --name y --type fanout --auto-delete true --durable false
                  --arguments '{{"alternate-exchange": "x"}}'""", **here)
        admin("""declare queue --name 'a queue' --type classic --durable true
                 --arguments '{"x-max-length": 10}'""", **here)
        for one in ["list exchanges", "exchanges list", "list exchanges --page 1 --page-size 100"]:
            one_row(one, "x", "topic", **here)
        to_queue = "--source x --destination-type queue --destination 'a queue'"
        to_exchange = "--source x --destination-type exchange --destination y"
        admin(f"""{bind} {to_queue} --routing-key a.# --arguments '{{"k": "v", "n": 1}}'""", **here)
        admin(f"{bind} {to_exchange} --routing-key b", **here)
        for one in ["list bindings", "bindings list"]:
            one_row(one, "v2", "a.#", **here)
        admin(f"""{unbind} {to_queue} --routing-key a.# --arguments '{{"k": "v", "n": 1}}'""",
              **here)
        admin(f"{unbind} {to_exchange} --routing-key b", **here)
        admin(f"{unbind} {to_exchange} --routing-key b", code=NOT_FOUND, **here)
        admin(f"{unbind} {to_exchange} --routing-key b --idempotently", **here)
        no_row("list bindings", "a.#", **here)
        admin("declare queue --name 'a queue' --type quorum", "inequivalent arg", code=65, **here)
        # The last binding of `y` has gone, so it has deleted itself.
        admin(f"{delete} --name y --idempotently", **here)
        admin(f"{delete} --name x", **here)
        admin(f"{delete} --name x", code=NOT_FOUND, **here)
        admin("delete queue --name 'a queue'", **here)
    for declare in ["declare queue", "queues declare"]:
        admin(f"{declare} --name q --type quorum --durable true --auto-delete false", **here)
        one_row("list queues", "q", "quorum", **here)
        one_row("queues list --page 1 --page-size 10", "q", "quorum", **here)
        admin("queues show --name q", "quorum", **here)
        admin(f"{'delete queue' if declare[0] == 'd' else 'queues delete'} --name q", **here)
    admin("queues show --name q", code=NOT_FOUND, **here)
    admin("delete queue --name q", code=NOT_FOUND, **here)
    admin("delete queue --name q --idempotently", **here)
    for one in ["del-1", "del-2", "kept"]:
        admin(f"declare queue --name {one}", **here)
    admin("queues delete_multiple --name-pattern ^del- --dry-run", "del-1", **here)
    admin("queues delete_multiple --name-pattern ^del- --approve", **here)
    no_row("list queues", "del-1", **here)
    one_row("list queues", "kept", **here)
    for declare in ["declare stream", "streams declare"]:
        admin(f"{declare} --name s --expiration 1D", "not available yet", code=65, **here)
    for delete in ["delete stream", "streams delete"]:
        admin(f"{delete} --name s", code=NOT_FOUND, **here)
        admin(f"{delete} --name s --idempotently", **here)
    admin("streams list", **here)
    admin("streams show --name s", code=NOT_FOUND, **here)
    for declare, delete in [("declare vhost_limit", "delete vhost_limit"),
                            ("vhost_limits declare", "vhost_limits delete")]:
        admin(f"{declare} --name max-queues --value 1", **here)
        for one in ["list vhost_limits", "vhost_limits list"]:
            one_row(one, "v2", "1", **here)
        admin("declare queue --name beyond", "limit", code=65, **here)
        admin(f"{delete} --name max-queues", **here)
        no_row("list vhost_limits", "v2", "1", **here)
    admin("delete vhost --name v2")


@case
def messages():
    admin("declare queue --name m")
    admin("""publish message --routing-key m --payload hello
             --properties '{"delivery_mode": 2, "message_id": "one", "priority": 3}'""",
          "routed successfully")
    admin("publish message --routing-key m --payload-file -", stdin="from a pipe")
    admin("publish message --routing-key nowhere --payload x", "NOT routed")
    admin("publish message --exchange none --payload x", code=NOT_FOUND)
    admin("get messages --queue m --count 1 --ack-mode ack_requeue_true", "hello")
    told = admin("get messages --queue m --count 10 --ack-mode ack_requeue_false")
    equal(("hello" in told, "from a pipe" in told), (True, True), told)
    admin("get messages --queue none", code=NOT_FOUND)
    for purge in ["purge queue", "queues purge"]:
        admin("publish message --routing-key m --payload x")
        admin(f"{purge} --name m")
        no_row("get messages --queue m", "x")
        admin(f"{purge} --name none", code=NOT_FOUND)
    admin("delete queue --name m")


@case
def policies():
    admin("declare queue --name p.1")
    for group, other in [("policies", "declare policy"),
                         ("operator_policies", "declare operator_policy")]:
        admin(f"""{group} declare --name one --pattern ^p --apply-to queues --priority 3
                  --definition '{{"max-length": 10, "expires": 3600000}}'""")
        admin(f"""{other} --name two --pattern ^z --apply-to classic_queues
                  --definition '{{"max-length": 20}}'""")
        for one in [f"{group} list", f"{group} list_in", f"list {group}"]:
            one_row(one, "one", "^p")
        one_row(f"{group} list_in --apply-to queues", "one")
        one_row(f"{group} list_matching_object --name p.1 --type queues", "one")
        no_row(f"{group} list_matching_object --name p.1 --type queues", "two")
        admin(f"""{group} patch --name one --definition '{{"max-length": 11}}'""")
        admin(f"{group} update_definition --name one --definition-key max-length --new-value 12")
        admin(f"{group} update_definitions_of_all_in --definition-key max-length --new-value 13")
        equal(admin(f"{group} list").count("13"), 2)
        admin(f"{group} delete_definition_keys --name one --definition-keys expires")
        equal("expires" in admin(f"{group} list"), False)
    admin("policies update_definitions_of_all --definition-key max-length --new-value 14")
    admin("policies declare_override --name one --definition '{\"max-length\": 1}'")
    one_row("policies list", "overrides.one")
    admin("policies declare_blanket --name rest --apply-to queues "
          "--definition '{\"expires\": 9999}'")
    admin("policies list_conflicting")
    admin("policies list_conflicting_in")
    admin("queues show --name p.1", "overrides.one")
    admin("declare policy --name bad --pattern '(' --apply-to queues --definition '{}'", code=65)
    admin("policies declare --name bad --pattern a --apply-to queues --definition '{\"nope\": 1}'",
          "nope", code=65)
    admin("policies delete_definition_keys_from_all_in --definition-keys expires")
    admin("policies delete_definition_keys_from_all --definition-keys expires")
    admin("operator_policies delete_definition_keys_from_all_in --definition-keys expires")
    admin("delete policy --name one")
    admin("policies delete --name two")
    admin("policies delete --name overrides.one")
    admin("policies delete --name rest --idempotently")
    admin("policies delete --name one", code=NOT_FOUND)
    admin("policies delete --name one --idempotently")
    admin("delete operator_policy --name one")
    admin("operator_policies delete --name two")
    admin("operator_policies delete --name two", code=NOT_FOUND)
    admin("delete queue --name p.1")


@case
def parameters():
    admin("global_parameters set --name g --value '{\"a\": 1}'")
    one_row("global_parameters list", "g")
    admin("global_parameters clear --name g")
    admin("global_parameters clear --name g", code=NOT_FOUND)
    value = "'{\"pattern\": \"^q\", \"definition\": {\"max-length\": 5}, \"apply-to\": \"queues\"}'"
    for put, take in [("declare parameter", "delete parameter"),
                      ("parameters set", "parameters clear")]:
        admin(f"{put} --component operator_policy --name o --value {value}")
        for one in ["parameters list_all", "list parameters --component operator_policy",
                    "parameters list --component operator_policy",
                    "parameters list_in --component operator_policy"]:
            one_row(one, "operator_policy", "o")
        admin(f"{take} --component operator_policy --name o")
        admin(f"{take} --component operator_policy --name o --idempotently")


@case
def definitions():
    admin("declare queue --name exported")
    file = f"{HOME.name}/all.json"
    for one in ["definitions export", "export definitions"]:
        admin(f"{one} --file {file}")
        queues = json.loads(Path(file).read_text())["queues"]
        equal("exported" in [queue["name"] for queue in queues], True)
    equal("exported" in admin("definitions export --stdout"), True)
    admin("delete queue --name exported")
    admin(f"definitions import --file {file}")
    one_row("list queues", "exported")
    admin("definitions import --stdin", stdin=Path(file).read_text())
    changed = "prepare_for_quorum_queue_migration,drop_empty_policies,exclude_users"
    admin(f"definitions export --file {file} --transformations {changed}")
    equal(json.loads(Path(file).read_text())["users"], [])
    admin("declare vhost --name copy")
    admin(f"definitions export_from_vhost --file {file}")
    admin(f"definitions import_into_vhost --file {file}", vhost="copy")
    one_row("list queues", "exported", vhost="copy")
    Path(file).write_text('{"queues": [{"name": "bad"')
    admin(f"definitions import --file {file}", code=65)
    admin("delete vhost --name copy")
    admin("delete queue --name exported")


def connect(name):
    parameters = pika.URLParameters(AMQP_URL)
    parameters.client_properties = {"connection_name": name}
    return pika.BlockingConnection(parameters)


@case
def connections_are_listed_and_closed():
    for close in ["close connection", "connections close", "close user_connections",
                  "connections close_of_user"]:
        connection = connect("watched")
        channel = connection.channel()
        channel.queue_declare("watched", auto_delete=True)
        channel.basic_qos(prefetch_count=17)
        channel.basic_consume("watched", lambda *_: None, consumer_tag="a-tag")
        for one in ["list connections", "connections list --page 1 --page-size 100",
                    f"list user_connections --username {USER}",
                    f"connections list_of_user --username {USER}",
                    f"users connections --username {USER}"]:
            one_row(one, USER)
        one_row("list channels", "17")
        one_row("channels list", "17")
        one_row("list consumers", "a-tag", "17")
        if "user" in close:
            admin(f"{close} --username {USER}")
        else:
            table = admin("list connections")
            name = re.search(r"127\.0\.0\.1:\d+ -> 127\.0\.0\.1:\d+", table)
            name = name[0] if name else "watched"
            admin(f"{close} --name '{name}'")
        try:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                connection.process_data_events(1)
            raise AssertionError("the connection goes on")
        except pika.exceptions.AMQPConnectionError as error:
            equal("management" in str(error).lower() or "closed" in str(error).lower(), True, error)
        eventually(lambda: not rows("list connections", USER), "it is not listed any more")
    for close in ["close connection", "connections close"]:
        admin(f"{close} --name nobody", code=NOT_FOUND)
        admin(f"{close} --name nobody --idempotently")


@case
def shovels_and_federation_are_not_there_and_say_so():
    for one in ["shovels list", "shovels list_all", "federation list_all_links",
                "federation list_all_upstreams"]:
        admin(one)
    ends = "--source-uri amqp://127.0.0.1 --destination-uri amqp://127.0.0.1"
    no_shovels, no_federation = "no shovels", "no federation"
    admin(f"shovels declare_amqp091 --name s {ends} --source-queue a --destination-queue b",
          no_shovels, code=65)
    admin(f"shovels declare_amqp10 --name s {ends} --source-address a --destination-address b",
          no_shovels, code=65)
    for one in ["", "_for_queues", "_for_exchanges"]:
        admin(f"federation declare_upstream{one} --name f --uri amqp://127.0.0.1", no_federation,
              code=65)
    for one in ["shovels delete --name s", "delete shovel --name s",
                "federation delete_upstream --name f"]:
        admin(one, code=NOT_FOUND)
        admin(f"{one} --idempotently")
    files = " ".join(f"--node-local-{one}-path /none" for one in [
        "ca-certificate-bundle", "client-certificate-file", "client-private-key-file"])
    for one in ["shovels {}able_tls_peer_verification_for_all_source_uris",
                "shovels {}able_tls_peer_verification_for_all_destination_uris",
                "federation {}able_tls_peer_verification_for_all_upstreams"]:
        admin(one.format("dis"))
        admin(one.format("en") + f" {files}")


def commands_of(*group):
    told = run([*group, "--help"]).stdout
    listed = re.search(r"^Commands:\n((?:  .*\n|\n)*)", told, re.MULTILINE)
    return [name for name in re.findall(r"^  (\w+)", listed[1], re.MULTILINE) if name != "help"]


@case
def nothing_that_it_has_was_left_out():
    all_of_it = {f"{group} {name}" for group in commands_of() for name in commands_of(group)}
    equal(len(all_of_it) > 150, True, all_of_it)
    equal(sorted(all_of_it - asked - NOT_ASKED), [])


main()
