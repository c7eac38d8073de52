use super::*;

#[test]
fn reserved_names_and_carry_keys_are_known() {
    assert!(is_reserved("x-death") && !is_reserved("x-deaths"));
    assert!(is_carry_key("x-mq-id") && !is_carry_key("x-mq-other"));
}
