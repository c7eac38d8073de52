//! All routes, each with what it needs. Where two match a path, the first counts.

use std::pin::Pin;

use axum::http::Method;

use super::{
    bindings,
    call::{Call, Needs},
    connections, consumers, definitions, exchanges, fixed, health, limits, livelog, messages,
    nodes, overview, parameters, permissions, policies, queues, quorum, users, vhosts,
    wire::Outcome,
};

type Acting = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// What a route does.
#[derive(Clone, Copy)]
pub(crate) enum Does {
    /// Makes its answer of what there is, on a thread that may take its time.
    Look(fn(&Call) -> Outcome),
    /// Answers everybody alike.
    Free(fn() -> Outcome),
    /// Gives orders to the broker.
    Act(fn(Call) -> Acting),
}

/// A route.
pub(crate) struct Route {
    pub(crate) method: Method,
    /// Its path below `/api`; parts that begin with a colon have a name.
    pub(crate) path: &'static str,
    pub(crate) needs: Needs,
    pub(super) does: Does,
}

impl Route {
    /// The named parts of a path, if it is one of this route.
    pub(super) fn matches(&self, path: &[String]) -> Option<Vec<(&'static str, String)>> {
        let mut known = self.path.split('/');
        let mut named = Vec::new();
        for part in path {
            let known = known.next()?;
            match known.strip_prefix(':') {
                Some(name) => named.push((name, part.clone())),
                None if known == part => {}
                None => return None,
            }
        }
        known.next().is_none().then_some(named)
    }
}

macro_rules! routes {
    ($($needs:ident $method:ident $path:literal $kind:ident $does:expr;)*) => {
        &[$(Route {
            method: Method::$method,
            path: $path,
            needs: Needs::$needs,
            does: routes!(@$kind $does),
        },)*]
    };
    (@look $does:expr) => { Does::Look($does) };
    (@free $does:expr) => { Does::Free($does) };
    (@act $does:expr) => { Does::Act(|call| Box::pin($does(call))) };
}

/// All of them.
pub(crate) static ROUTES: &[Route] = routes! {
    Management GET "overview" look overview::overview;
    Management GET "cluster-name" look overview::cluster_name;
    Administrator PUT "cluster-name" look overview::set_cluster_name;
    Management GET "extensions" look fixed::nothing;
    Management GET "whoami" look users::whoami;
    Nobody GET "version" free overview::version;
    Monitoring GET "nodes" look nodes::list;
    Monitoring GET "nodes/:node" look nodes::one;
    Monitoring GET "nodes/:node/memory" look nodes::memory;
    Monitoring GET "nodes/:node/memory/relative" look nodes::relative_memory;

    Administrator GET "definitions" look definitions::export;
    Administrator POST "definitions" act definitions::import;
    Administrator GET "all-configuration" look definitions::export;
    Administrator POST "all-configuration" act definitions::import;
    Administrator GET "definitions/:vhost" look definitions::export_vhost;
    Administrator POST "definitions/:vhost" act definitions::import;

    Management GET "connections" look connections::list;
    Management GET "connections/username/:user" look connections::list_of_user;
    Management DELETE "connections/username/:user" look connections::close_of_user;
    Management GET "connections/:connection" look connections::one;
    Management DELETE "connections/:connection" look connections::delete;
    Management GET "connections/:connection/channels" look connections::channels_of_connection;
    Management GET "connections/:connection/sessions" look connections::sessions;
    Vhost GET "vhosts/:vhost/connections" look connections::list_of_vhost;
    Management GET "channels" look connections::channels;
    Management GET "channels/:channel" look connections::channel;
    Vhost GET "vhosts/:vhost/channels" look connections::channels_of_vhost;
    Management GET "consumers" look consumers::list;
    Vhost GET "consumers/:vhost" look consumers::list;
    Vhost DELETE "consumers/:vhost/:connection/:channel/:consumer" look consumers::cancel;

    Management GET "exchanges" look exchanges::list;
    Vhost GET "exchanges/:vhost" look exchanges::list;
    Vhost GET "exchanges/:vhost/:exchange" look exchanges::one;
    Vhost PUT "exchanges/:vhost/:exchange" act exchanges::put;
    Vhost DELETE "exchanges/:vhost/:exchange" act exchanges::delete;
    Vhost POST "exchanges/:vhost/:exchange/publish" act messages::publish;
    Vhost GET "exchanges/:vhost/:exchange/bindings/source" look exchanges::bindings_from;
    Vhost GET "exchanges/:vhost/:exchange/bindings/destination" look exchanges::bindings_to;

    Management GET "queues" look queues::list;
    Management GET "queues/detailed" look queues::list;
    Vhost GET "queues/:vhost" look queues::list;
    Vhost GET "queues/:vhost/:queue" look queues::one;
    Vhost PUT "queues/:vhost/:queue" act queues::put;
    Vhost DELETE "queues/:vhost/:queue" act queues::delete;
    Vhost GET "queues/:vhost/:queue/bindings" look queues::bindings;
    Vhost GET "queues/:vhost/:queue/unacked" look queues::unacked;
    Vhost DELETE "queues/:vhost/:queue/contents" act queues::purge;
    Administrator POST "queues/:vhost/:queue/actions" look queues::actions;
    Vhost POST "queues/:vhost/:queue/get" act messages::get;
    Vhost PUT "queues/:vhost/:queue/pause" act queues::pause;
    Vhost PUT "queues/:vhost/:queue/resume" act queues::resume;

    Vhost GET "queues/quorum/:vhost/:queue/status" look quorum::status;
    Administrator POST "queues/quorum/:vhost/:queue/replicas/add" look quorum::add;
    Administrator DELETE "queues/quorum/:vhost/:queue/replicas/delete" look quorum::delete;
    Administrator POST "queues/quorum/replicas/on/:node/grow" look quorum::grow;
    Administrator DELETE "queues/quorum/replicas/on/:node/shrink" look quorum::shrink;

    Management GET "bindings" look bindings::list;
    Vhost GET "bindings/:vhost" look bindings::list;
    Vhost GET "bindings/:vhost/e/:source/q/:queue" look bindings::between;
    Vhost POST "bindings/:vhost/e/:source/q/:queue" act bindings::post;
    Vhost GET "bindings/:vhost/e/:source/q/:queue/:properties_key" look bindings::one;
    Vhost DELETE "bindings/:vhost/e/:source/q/:queue/:properties_key" act bindings::delete;
    Vhost GET "bindings/:vhost/e/:source/e/:destination" look bindings::between;
    Vhost POST "bindings/:vhost/e/:source/e/:destination" act bindings::post;
    Vhost GET "bindings/:vhost/e/:source/e/:destination/:properties_key" look bindings::one;
    Vhost DELETE "bindings/:vhost/e/:source/e/:destination/:properties_key" act bindings::delete;

    Management GET "vhosts" look vhosts::list;
    Administrator GET "vhosts/:vhost" look vhosts::one;
    Administrator PUT "vhosts/:vhost" look vhosts::put;
    Administrator DELETE "vhosts/:vhost" look vhosts::delete;
    Administrator GET "vhosts/:vhost/permissions" look permissions::list_of_vhost;
    Administrator GET "vhosts/:vhost/topic-permissions" look permissions::topics_of_vhost;
    Administrator POST "vhosts/:vhost/start/:node" look vhosts::start;
    Administrator GET "vhosts/:vhost/deletion/protection" look vhosts::protection;
    Administrator POST "vhosts/:vhost/deletion/protection" look vhosts::protect;
    Administrator DELETE "vhosts/:vhost/deletion/protection" look vhosts::unprotect;

    Administrator GET "users" look users::list;
    Administrator GET "users/without-permissions" look users::without_permissions;
    Administrator POST "users/bulk-delete" look users::bulk_delete;
    Administrator GET "users/:user" look users::one;
    Administrator PUT "users/:user" act users::put;
    Administrator DELETE "users/:user" look users::delete;
    Management GET "users/:user/queues" look queues::list_of_user;
    Administrator GET "users/:user/permissions" look permissions::list_of_user;
    Administrator GET "users/:user/topic-permissions" look permissions::topics_of_user;
    Administrator GET "permissions" look permissions::list;
    Administrator GET "permissions/:vhost/:user" look permissions::one;
    Administrator PUT "permissions/:vhost/:user" look permissions::put;
    Administrator DELETE "permissions/:vhost/:user" look permissions::delete;
    Administrator GET "topic-permissions" look permissions::topics;
    Administrator GET "topic-permissions/:vhost/:user" look permissions::topics_of;
    Administrator PUT "topic-permissions/:vhost/:user" look permissions::put_topic;
    Administrator DELETE "topic-permissions/:vhost/:user" look permissions::delete_topics;
    Administrator GET "topic-permissions/:vhost/:user/:exchange" look permissions::topics_of;
    Administrator PUT "topic-permissions/:vhost/:user/:exchange" look permissions::put_topic;
    Administrator DELETE "topic-permissions/:vhost/:user/:exchange" look permissions::delete_topics;

    Management GET "policies" look policies::list;
    Vhost GET "policies/:vhost" look policies::list;
    Policymaker GET "policies/:vhost/:name" look policies::one;
    Policymaker PUT "policies/:vhost/:name" look policies::put;
    Policymaker DELETE "policies/:vhost/:name" look policies::delete;
    Management GET "operator-policies" look policies::list_operator;
    Vhost GET "operator-policies/:vhost" look policies::list_operator;
    Administrator GET "operator-policies/:vhost/:name" look policies::one_operator;
    Administrator PUT "operator-policies/:vhost/:name" look policies::put_operator;
    Administrator DELETE "operator-policies/:vhost/:name" look policies::delete_operator;
    Policymaker GET "parameters" look parameters::list;
    Policymaker GET "parameters/:component" look parameters::list;
    Policymaker GET "parameters/:component/:vhost" look parameters::list;
    Policymaker GET "parameters/:component/:vhost/:name" look parameters::one;
    Policymaker PUT "parameters/:component/:vhost/:name" look parameters::put;
    Policymaker DELETE "parameters/:component/:vhost/:name" look parameters::delete;
    Policymaker GET "global-parameters" look parameters::list_global;
    Policymaker GET "global-parameters/:name" look parameters::one_global;
    Policymaker PUT "global-parameters/:name" look parameters::put_global;
    Policymaker DELETE "global-parameters/:name" look parameters::delete_global;

    Management GET "vhost-limits" look limits::list_vhosts;
    Vhost GET "vhost-limits/:vhost" look limits::list_vhosts;
    Administrator PUT "vhost-limits/:vhost/:name" look limits::put_vhost;
    Administrator DELETE "vhost-limits/:vhost/:name" look limits::delete_vhost;
    Administrator GET "user-limits" look limits::list_users;
    Management GET "user-limits/:user" look limits::list_user;
    Administrator PUT "user-limits/:user/:name" look limits::put_user;
    Administrator DELETE "user-limits/:user/:name" look limits::delete_user;

    Vhost GET "aliveness-test/:vhost" look health::alive;
    Management GET "healthchecks/node" look health::alarms;
    Management GET "healthchecks/node/:node" look health::alarms_of_node;
    Management GET "health/checks/alarms" look health::alarms;
    Management GET "health/checks/local-alarms" look health::alarms;
    Management GET "health/checks/metadata-store/initialized" look health::initialized;
    Management GET "health/checks/metadata-store/initialized/with-data" look health::initialized;
    Management GET "health/checks/certificate-expiration/:within/:unit" look health::certificates;
    Management GET "health/checks/port-listener/:port" look health::port;
    Management GET "health/checks/protocol-listener/:protocols" look health::protocols;
    Management GET "health/checks/virtual-hosts" look health::always;
    Management GET "health/checks/node-is-quorum-critical" look health::single;
    Management GET "health/checks/node-is-mirror-sync-critical" look health::single;
    Management GET "health/checks/is-in-service" look health::initialized;
    Management GET "health/checks/below-node-connection-limit" look health::connections;
    Management GET "health/checks/ready-to-serve-clients" look health::ready;
    Management GET "health/checks/reached-target-cluster-size" look health::always;
    Management GET "health/checks/quorum-queues-without-elected-leaders/all-vhosts"
        look health::always;
    Management GET "health/checks/quorum-queues-without-elected-leaders/all-vhosts/pattern/:p"
        look health::always;
    Vhost GET "health/checks/quorum-queues-without-elected-leaders/vhost/:vhost"
        look health::always;
    Vhost GET "health/checks/quorum-queues-without-elected-leaders/vhost/:vhost/pattern/:p"
        look health::always;

    Management GET "feature-flags" look fixed::nothing;
    Administrator PUT "feature-flags/:name/enable" look fixed::done;
    Management GET "deprecated-features" look fixed::nothing;
    Management GET "deprecated-features/used" look fixed::nothing;
    Monitoring GET "livelog" act livelog::follow;
    Administrator GET "config/effective" look nodes::configuration;
    Administrator POST "rebalance/queues" look fixed::done;
    Administrator DELETE "reset" look nodes::reset;
    Administrator DELETE "reset/:node" look nodes::reset;
    Monitoring GET "auth/attempts/:node" look nodes::logins;
    Monitoring GET "auth/attempts/:node/source" look fixed::nothing;
    Administrator DELETE "auth/attempts/:node" look nodes::forget_logins;
    Monitoring GET "federation-links" look fixed::nothing;
    Monitoring GET "federation-links/:vhost" look fixed::nothing;
    Monitoring GET "federation-links/state/down" look fixed::nothing;
    Monitoring GET "federation-links/:vhost/state/down" look fixed::nothing;
    Policymaker DELETE "federation-links/vhost/:vhost/:id/:node/restart" look fixed::missing;
    Monitoring GET "shovels" look fixed::nothing;
    Monitoring GET "shovels/:vhost" look fixed::nothing;
    Monitoring GET "shovels/vhost/:vhost/:name" look fixed::missing;
    Policymaker DELETE "shovels/vhost/:vhost/:name" look fixed::missing;
    Policymaker DELETE "shovels/vhost/:vhost/:name/restart" look fixed::missing;
    Management GET "stream/connections" look fixed::nothing;
    Vhost GET "stream/connections/:vhost" look fixed::nothing;
    Vhost GET "stream/connections/:vhost/:connection" look fixed::missing;
    Vhost DELETE "stream/connections/:vhost/:connection" look fixed::missing;
    Vhost GET "stream/connections/:vhost/:connection/publishers" look fixed::nothing;
    Vhost GET "stream/connections/:vhost/:connection/consumers" look fixed::nothing;
    Management GET "stream/publishers" look fixed::nothing;
    Vhost GET "stream/publishers/:vhost" look fixed::nothing;
    Vhost GET "stream/publishers/:vhost/:queue" look fixed::nothing;
    Management GET "stream/consumers" look fixed::nothing;
    Vhost GET "stream/consumers/:vhost" look fixed::nothing;
    Vhost PUT "stream/super-streams/:vhost/:name" look fixed::no_streams;
    Vhost GET "stream/:vhost/:queue/tracking" look fixed::nothing;
};
