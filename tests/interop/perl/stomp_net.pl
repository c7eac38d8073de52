#!/usr/bin/perl
# Net::Stomp, as Debian has it, over STOMP 1.0, 1.1 and 1.2.
use strict;
use warnings;

use Net::Stomp;

my $limit = 30;
my $failures = 0;
$| = 1;

sub client {
    my ($version, %more) = @_;
    my $stomp = Net::Stomp->new({ hostname => $ENV{STOMP_HOST}, port => $ENV{STOMP_PORT} });
    my %own = (login => $ENV{USER}, passcode => $ENV{PASS}, %more);
    @own{qw(accept-version host)} = ($version, '/') if $version ne '1.0';
    my $frame = $stomp->connect(\%own);
    die 'not connected: ' . $frame->as_string if $frame->command ne 'CONNECTED';
    return $stomp;
}

sub equal {
    my ($found, $expected, $what) = @_;
    die "$what: expected '$expected', found '" . ($found // 'nothing') . "'\n"
        if !defined $found || $found ne $expected;
}

sub message {
    my ($stomp) = @_;
    my $frame = $stomp->receive_frame({ timeout => $limit }) or die "no frame in time\n";
    equal($frame->command, 'MESSAGE', 'command');
    return $frame;
}

sub case {
    my ($name, $run) = @_;
    if (eval { $run->(); 1 }) {
        print "ok $name\n";
        return;
    }
    my $why = $@;
    $why =~ s/\s+/ /g;
    print "not ok $name: $why\n";
    $failures++;
}

for my $version ('1.0', '1.1', '1.2') {
    my $queue = "/queue/perl-$version";

    case("$version: send and receive", sub {
        my $stomp = client($version);
        $stomp->subscribe({ destination => $queue, id => 1, ack => 'client' });
        $stomp->send({ destination => $queue, body => "number $_", mine => 'x' }) for 1 .. 20;
        for (1 .. 20) {
            my $frame = message($stomp);
            equal($frame->body, "number $_", 'body');
            equal($frame->headers->{mine}, 'x', 'header');
            $stomp->ack({ frame => $frame });
        }
        $stomp->unsubscribe({ destination => $queue, id => 1 });
        $stomp->disconnect;
    });

    case("$version: receipts", sub {
        my $stomp = client($version);
        my %send = (destination => "/topic/perl.$version", body => 'x', persistent => 'true');
        $stomp->send_with_receipt({ %send, timeout => $limit }) or die "no receipt\n";
        $stomp->send_transactional({ %send, timeout => $limit }) or die "no receipt\n";
        $stomp->disconnect;
    });

    case("$version: bytes", sub {
        my $stomp = client($version);
        $stomp->subscribe({ destination => $queue, id => 1 });
        my $body = join '', map { chr } 0 .. 255;
        $stomp->send({ destination => $queue, body => $body, bytes_message => 1 });
        equal(message($stomp)->body, $body, 'body');
        $stomp->disconnect;
    });
}

case('1.2: nack gives a message back', sub {
    my $stomp = client('1.2');
    my $queue = '/queue/perl-nack';
    $stomp->subscribe({ destination => $queue, id => 1, ack => 'client-individual' });
    $stomp->send({ destination => $queue, body => 'x' });
    $stomp->nack({ frame => message($stomp) });
    my $frame = message($stomp);
    equal($frame->body, 'x', 'body');
    $stomp->ack({ frame => $frame });
    $stomp->disconnect;
});

case('wrong password is refused', sub {
    my $stomp = eval { client('1.2', passcode => 'wrong') };
    die "accepted\n" if $stomp;
});

exit($failures ? 1 : 0);
