//! What the routes of management have in common.

use serde_json::{Value, json};

use crate::{
    api::{Answer, Kind, Media, Method, Operation, Parameter},
    schema::Schemas,
};

/// A route about which nothing is said yet.
pub(super) const ROUTE: Operation = Operation {
    method: Method::Get,
    path: "",
    id: "",
    tag: "",
    summary: "",
    permission: "any user",
    query: &[],
    headers: &[],
    body: &[],
    answers: OBJECT,
};

/// What an operation says that only these roles may use. It is enforced before anything else.
pub(super) const ADMINISTRATOR: &str = "tag administrator";
/// The same for policies.
pub(super) const POLICYMAKER: &str = "tag policymaker";
/// The same for looking at everything.
pub(super) const MONITORING: &str = "tag monitoring";

/// The answer is an object.
pub(super) const OBJECT: &[Answer] =
    &[Answer { status: 200, about: "The object", media: &[Media::json(object)] }];
/// There is nothing to say.
pub(super) const NOTHING: &[Answer] = &[Answer { status: 204, about: "Done", media: &[] }, PREVIEW];
/// The object is new, or as it should be.
pub(super) const PUT: &[Answer] = &[
    Answer { status: 201, about: "It is new", media: &[Media::json(object)] },
    Answer { status: 200, about: "It is as asked for", media: &[Media::json(object)] },
];
/// Work has begun.
pub(super) const JOB: &[Answer] = &[
    Answer { status: 202, about: "The job has begun", media: &[Media::json(object)] },
    Answer {
        status: 200,
        about: "The job is over, or would do this",
        media: &[Media::json(object)],
    },
];
/// What would happen.
const PREVIEW: Answer =
    Answer { status: 200, about: "What would happen", media: &[Media::json(object)] };

/// Any object.
pub(super) fn object(_: &mut Schemas) -> Value {
    json!({ "type": "object" })
}

/// Nothing happens; the answer says what would.
pub(super) const DRY_RUN: Parameter =
    Parameter { name: "dry_run", kind: Kind::Flag, about: "Check everything and change nothing" };

/// Which state of the object is meant.
pub(super) const IF_MATCH: Parameter = Parameter {
    name: "If-Match",
    kind: Kind::Text,
    about: "The ETag of the object as it must be now",
};
/// Which state of the object is not meant.
pub(super) const IF_NONE_MATCH: Parameter = Parameter {
    name: "If-None-Match",
    kind: Kind::Text,
    about: "`*`: only when it is not there yet",
};
/// Both.
pub(super) const CONDITIONS: &[Parameter] = &[IF_MATCH, IF_NONE_MATCH];
