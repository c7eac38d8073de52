//! What an error of PostgreSQL means, by the codes of appendix A of its manual.

use crate::failure::Failure;

pub(super) fn failure(error: sqlx::Error) -> Failure {
    let text = error.to_string();
    let of_server = error.as_database_error();
    match of_server.and_then(|error| Some((error.code()?, error.message()))) {
        Some((code, message)) => of_code(&code, message.to_owned()),
        // A column that is not what we wrote.
        None if matches!(error, sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)) => {
            Failure::Damaged(text)
        }
        // No code: it is not the server that spoke.
        None => Failure::Lost(text),
    }
}

fn of_code(code: &str, text: String) -> Failure {
    match code {
        // disk_full; configuration_limit_exceeded is a quota.
        "53100" | "53400" => Failure::Full(text),
        // read_only_sql_transaction: a standby, or a database that was made read-only.
        "25006" => Failure::ReadOnly(text),
        // serialization_failure, deadlock_detected, query_canceled, lock_not_available,
        // out_of_memory: rolled back.
        "40001" | "40P01" | "57014" | "55P03" | "53200" => Failure::Again(text),
        // data_corrupted, index_corrupted
        "XX001" | "XX002" => Failure::Damaged(text),
        // admin_shutdown, crash_shutdown, cannot_connect_now, database_dropped and
        // idle_session_timeout end the connection; 08 are its own errors; 53300 is
        // too_many_connections, and 25P03 is idle_in_transaction_session_timeout.
        "57P01" | "57P02" | "57P03" | "57P04" | "57P05" | "53300" | "25P03" => Failure::Lost(text),
        _ if code.starts_with("08") => Failure::Lost(text),
        // Among them 23505, unique_violation: somebody else writes to our tables.
        _ => Failure::Fatal(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_mean_what_the_committer_does_about_them() {
        let meaning = |code| of_code(code, String::new());
        assert!(matches!(meaning("53100"), Failure::Full(_)));
        assert!(matches!(meaning("25006"), Failure::ReadOnly(_)));
        for rolled_back in ["40001", "40P01", "57014"] {
            assert!(matches!(meaning(rolled_back), Failure::Again(_)));
        }
        for lost in ["57P01", "57P02", "57P03", "08006"] {
            assert!(matches!(meaning(lost), Failure::Lost(_)));
        }
        assert!(matches!(meaning("23505"), Failure::Fatal(_)));
    }
}
