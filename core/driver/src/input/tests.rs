//! Where read buffers go.

use std::{future::poll_fn, io::Cursor};

use super::*;

async fn read(input: &mut Input, bytes: &[u8]) -> usize {
    let mut socket = Cursor::new(bytes);
    poll_fn(|cx| input.poll_read(&mut socket, usize::MAX, cx)).await.expect("a read")
}

fn spares() -> usize {
    SPARES.with_borrow(Vec::len)
}

#[tokio::test]
async fn an_empty_input_rests_without_a_buffer_and_the_next_reader_gets_it() {
    let (mut one, mut two) = (Input::default(), Input::default());
    assert_eq!(read(&mut one, b"hello").await, 5);
    let place = one.bytes().as_ptr();
    drop(one.bytes().split_to(5));
    one.rest();
    assert_eq!((one.bytes().capacity(), spares()), (0, 1));
    read(&mut two, b"world").await;
    assert_eq!(two.bytes().as_ptr(), place);
    assert_eq!(spares(), 0);
}

#[tokio::test]
async fn a_partial_frame_rests_in_a_buffer_of_its_size() {
    let mut input = Input::default();
    read(&mut input, b"half a fra").await;
    input.rest();
    assert!(input.bytes().capacity() < 64);
    assert_eq!(spares(), 1);
    read(&mut input, b"me").await;
    assert_eq!(&input.bytes()[..], b"half a frame");
}

#[tokio::test]
async fn reads_start_again_at_the_front_when_everything_was_taken() {
    let mut input = Input::default();
    read(&mut input, &[1; 1000]).await;
    let place = input.bytes().as_ptr();
    for _ in 0..1000 {
        drop(input.bytes().split_to(1000));
        read(&mut input, &[2; 1000]).await;
        assert_eq!(input.bytes().as_ptr(), place);
    }
}

#[tokio::test]
async fn bodies_that_share_a_buffer_keep_their_bytes() {
    let mut input = Input::default();
    let mut bodies = Vec::new();
    for value in 0..100 {
        read(&mut input, &[value; 8000]).await;
        bodies.push((value, input.bytes().split_to(8000).freeze()));
        input.rest();
    }
    for (value, body) in bodies {
        assert!(body.iter().all(|byte| *byte == value));
    }
}
