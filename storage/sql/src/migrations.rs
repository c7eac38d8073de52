//! The tables of both databases, from the top-level folder `migrations`.

use std::borrow::Cow;

use sqlx::{
    SqlSafeStr,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
};

use crate::failure::Failure;

/// Version, what it does, statements.
type File = (i64, &'static str, &'static str);

const POSTGRES: &[File] =
    &[(1, "first", include_str!("../../../migrations/postgres/0001_first.sql"))];
const SQLITE: &[File] = &[(1, "first", include_str!("../../../migrations/sqlite/0001_first.sql"))];

pub(crate) fn postgres() -> Migrator {
    migrator(POSTGRES)
}

pub(crate) fn sqlite() -> Migrator {
    migrator(SQLITE)
}

fn migrator(files: &[File]) -> Migrator {
    let migration = |(version, about, sql): &File| {
        let about = Cow::Borrowed(*about);
        Migration::new(*version, about, MigrationType::Simple, (*sql).into_sql_str(), false)
    };
    Migrator::with_migrations(files.iter().map(migration).collect())
}

/// Tells a database of a newer version from a failure.
pub(crate) fn failure(error: MigrateError, other: impl FnOnce(sqlx::Error) -> Failure) -> Failure {
    match error {
        MigrateError::VersionMissing(version) => Failure::Refused(format!(
            "its tables are of a newer version of PolyMQ (migration {version}); start that version"
        )),
        MigrateError::VersionMismatch(version) => Failure::Refused(format!(
            "its tables were made by another migration {version} than the one of this version"
        )),
        MigrateError::Dirty(version) => {
            Failure::Refused(format!("migration {version} did not finish; restore a backup"))
        }
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => other(error),
        error => Failure::fatal("the tables cannot be brought up to date", &error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folders_is_run_in_order() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations");
        for (folder, known) in [("postgres", POSTGRES), ("sqlite", SQLITE)] {
            let mut names: Vec<_> = std::fs::read_dir(root.join(folder))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            let expected =
                known.iter().map(|(number, about, _)| format!("{number:04}_{about}.sql"));
            assert!(names.iter().eq(&expected.collect::<Vec<_>>()), "{folder}: {names:?}");
        }
    }
}
