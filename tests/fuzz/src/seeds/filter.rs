//! Filters of every form.

use super::Seed;

pub(super) fn filters(seeds: &mut Vec<Seed>) {
    let deep = format!("{}a{}", "(".repeat(64), ")".repeat(64));
    let long = format!("{}a = 1", "a = 1 OR ".repeat(400));
    let texts = [
        "priority >= 5 AND (tenant LIKE 'acme%' OR json('$.order.total') > 100)\n{\"order\":{}}",
        "a NOT BETWEEN -1.5e3 AND +2 * (3 - b) / 0 AND NOT c",
        "a IN (1, 'x', NULL, TRUE) OR a NOT IN ('it''s')",
        "\"a-b\" IS NOT NULL AND abc IS NULL",
        "abcde LIKE 'a!_b!%' ESCAPE '!' AND matches(abcde, '^(a|b)+$')",
        "age(abc) > '1h30m' AND '5m' < age(abc)",
        "json('$[\"a b\"][0].c') <> 1\n{\"a b\":[{\"c\":1e400}]}",
        &deep,
        &long,
    ];
    for (at, text) in texts.into_iter().enumerate() {
        seeds.push(Seed { target: "filter", name: format!("filter-{at}"), bytes: text.into() });
    }
}
