// Program amqp091 drives a broker with github.com/rabbitmq/amqp091-go.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	. "polymq/interop/cases"
)

var (
	address = os.Getenv("AMQP_URL")
	ctx     = context.Background()
)

func withChannel(run func(*amqp.Connection, *amqp.Channel) error) func() error {
	return func() error {
		connection, err := amqp.Dial(address)
		if err != nil {
			return err
		}
		defer connection.Close()
		channel, err := connection.Channel()
		if err != nil {
			return err
		}
		return run(connection, channel)
	}
}

func ownQueue(channel *amqp.Channel, arguments amqp.Table) (string, error) {
	queue, err := channel.QueueDeclare("", false, false, true, false, arguments)
	return queue.Name, err
}

func publish(channel *amqp.Channel, queue, body string) error {
	return channel.PublishWithContext(ctx, "", queue, false, false,
		amqp.Publishing{Body: []byte(body), DeliveryMode: amqp.Persistent})
}

func consume(channel *amqp.Channel, queue string, autoAck bool) (<-chan amqp.Delivery, error) {
	return channel.Consume(queue, "", autoAck, false, false, false, nil)
}

func confirmed(_ *amqp.Connection, channel *amqp.Channel) error {
	if err := channel.Confirm(false); err != nil {
		return err
	}
	if _, err := channel.QueueDeclare("go", true, false, false, false, nil); err != nil {
		return err
	}
	var pending []*amqp.DeferredConfirmation
	for number := 0; number < 100; number++ {
		confirmation, err := channel.PublishWithDeferredConfirmWithContext(ctx, "", "go", false, false,
			amqp.Publishing{Body: fmt.Appendf(nil, "%d", number), DeliveryMode: amqp.Persistent})
		if err != nil {
			return err
		}
		pending = append(pending, confirmation)
	}
	for _, confirmation := range pending {
		if !confirmation.Wait() {
			return errors.New("a publish was nacked")
		}
	}
	if err := channel.Qos(10, 0, false); err != nil {
		return err
	}
	deliveries, err := consume(channel, "go", false)
	if err != nil {
		return err
	}
	for number := 0; number < 100; number++ {
		delivery, err := Next(deliveries, "delivery")
		if err := First(err, Equal(string(delivery.Body), fmt.Sprint(number), "body"),
			delivery.Ack(false)); err != nil {
			return err
		}
	}
	_, err = channel.QueueDelete("go", false, true, false)
	return err
}

func properties(_ *amqp.Connection, channel *amqp.Channel) error {
	queue, err := ownQueue(channel, nil)
	if err != nil {
		return err
	}
	headers := amqp.Table{
		"text": "é", "yes": true, "byte": byte(200), "i8": int8(-5), "i16": int16(-300), "i32": int32(70000),
		"i64": int64(1) << 40, "f32": float32(1.5), "f64": 2.25, "void": nil,
		"decimal": amqp.Decimal{Scale: 2, Value: 1250}, "bytes": []byte{0, 255},
		"time": time.Unix(1700000000, 0), "list": []any{int32(1), "a"}, "table": amqp.Table{"deep": true},
	}
	sent := amqp.Publishing{
		Headers: headers, ContentType: "text/plain", ContentEncoding: "gzip", DeliveryMode: 2, Priority: 3,
		CorrelationId: "c", ReplyTo: "r", Expiration: "60000", MessageId: "m",
		Timestamp: time.Unix(1700000000, 0), Type: "t", UserId: "guest", AppId: "a", Body: []byte("x"),
	}
	if err := channel.PublishWithContext(ctx, "", queue, false, false, sent); err != nil {
		return err
	}
	deliveries, err := consume(channel, queue, true)
	if err != nil {
		return err
	}
	found, err := Next(deliveries, "delivery")
	return First(err,
		Equal(found.Headers, headers, "headers"),
		Equal([]any{found.ContentType, found.ContentEncoding, found.DeliveryMode, found.Priority, found.CorrelationId,
			found.ReplyTo, found.Expiration, found.MessageId, found.Timestamp, found.Type, found.UserId, found.AppId},
			[]any{"text/plain", "gzip", uint8(2), uint8(3), "c", "r", "60000", "m", sent.Timestamp, "t", "guest", "a"},
			"properties"))
}

func returned(_ *amqp.Connection, channel *amqp.Channel) error {
	returns := channel.NotifyReturn(make(chan amqp.Return, 1))
	if err := channel.Confirm(false); err != nil {
		return err
	}
	confirmation, err := channel.PublishWithDeferredConfirmWithContext(ctx, "", "nobody", true, false,
		amqp.Publishing{Body: []byte("x")})
	if err != nil {
		return err
	}
	message, err := Next(returns, "return")
	if err := First(err, Equal(message.ReplyCode, uint16(312), "reply code")); err != nil {
		return err
	}
	return Equal(confirmation.Wait(), true, "confirm of the returned message")
}

func refused(_ *amqp.Connection, channel *amqp.Channel) error {
	queue, err := ownQueue(channel, amqp.Table{"x-max-length": 1, "x-overflow": "reject-publish"})
	if err := First(err, channel.Confirm(false), publish(channel, queue, "fits")); err != nil {
		return err
	}
	confirmation, err := channel.PublishWithDeferredConfirmWithContext(ctx, "", queue, false, false,
		amqp.Publishing{Body: []byte("too much")})
	if err != nil {
		return err
	}
	return Equal(confirmation.Wait(), false, "confirm")
}

func settled(_ *amqp.Connection, channel *amqp.Channel) error {
	dead, err := ownQueue(channel, nil)
	if err != nil {
		return err
	}
	queue, err := ownQueue(channel,
		amqp.Table{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
	if err := First(err, publish(channel, queue, "x")); err != nil {
		return err
	}
	deliveries, err := consume(channel, queue, false)
	if err != nil {
		return err
	}
	first, err := Next(deliveries, "first delivery")
	if err := First(err, first.Nack(false, true)); err != nil {
		return err
	}
	second, err := Next(deliveries, "second delivery")
	if err := First(err, Equal(second.Redelivered, true, "redelivered"), second.Reject(false)); err != nil {
		return err
	}
	letters, err := consume(channel, dead, true)
	if err != nil {
		return err
	}
	letter, err := Next(letters, "dead letter")
	if err != nil {
		return err
	}
	return Equal(letter.Headers["x-first-death-reason"], "rejected", "reason")
}

func channelErrors(connection *amqp.Connection, keeper *amqp.Channel) error {
	if _, err := keeper.QueueDeclare("go-fixed", true, false, false, false, nil); err != nil {
		return err
	}
	other, err := amqp.Dial(address)
	if err != nil {
		return err
	}
	defer other.Close()
	foreign, err := other.Channel()
	if err != nil {
		return err
	}
	if _, err := foreign.QueueDeclare("go-mine", false, false, true, false, nil); err != nil {
		return err
	}
	for code, action := range map[int]func(*amqp.Channel) error{
		404: func(c *amqp.Channel) error {
			_, err := c.QueueDeclarePassive("missing", false, false, false, false, nil)
			return err
		},
		406: func(c *amqp.Channel) error {
			_, err := c.QueueDeclare("go-fixed", false, false, false, false, nil)
			return err
		},
		403: func(c *amqp.Channel) error {
			return c.ExchangeDeclare("amq.mine", "direct", false, false, false, false, nil)
		},
		405: func(c *amqp.Channel) error { _, err := c.QueuePurge("go-mine", false); return err },
	} {
		channel, err := connection.Channel()
		if err != nil {
			return err
		}
		var told *amqp.Error
		if err := action(channel); !errors.As(err, &told) {
			return fmt.Errorf("%d expected, found %v", code, err)
		}
		if err := First(Equal(told.Code, code, "code"), Equal(told.Server, true, "by the server")); err != nil {
			return err
		}
	}
	_, err = keeper.QueueDelete("go-fixed", false, false, false)
	return err
}

func badLogin() error {
	_, err := amqp.Dial(strings.Replace(address, "guest:guest", "guest:wrong", 1))
	var told *amqp.Error
	if !errors.As(err, &told) || told.Code != 403 {
		return fmt.Errorf("403 expected, found %v", err)
	}
	_, err = amqp.Dial(strings.Replace(address, "%2f", "nowhere", 1))
	if !errors.As(err, &told) {
		return fmt.Errorf("a refused vhost expected, found %v", err)
	}
	return nil
}

func cancelled(connection *amqp.Connection, channel *amqp.Channel) error {
	queue, err := channel.QueueDeclare("", false, true, false, false, nil)
	if err != nil {
		return err
	}
	cancels := channel.NotifyCancel(make(chan string, 1))
	if _, err := channel.Consume(queue.Name, "tag", true, false, false, false, nil); err != nil {
		return err
	}
	if _, err := channel.QueueDelete(queue.Name, false, false, false); err != nil {
		return err
	}
	tag, err := Next(cancels, "cancel")
	return First(err, Equal(tag, "tag", "consumer tag"), connection.UpdateSecret("guest", "rotation"))
}

func transaction(_ *amqp.Connection, channel *amqp.Channel) error {
	queue, err := ownQueue(channel, nil)
	if err := First(err, channel.Tx(), publish(channel, queue, "no"), channel.TxRollback(),
		publish(channel, queue, "yes"), channel.TxCommit()); err != nil {
		return err
	}
	message, found, err := channel.Get(queue, true)
	return First(err, Equal(found, true, "a message"), Equal(string(message.Body), "yes", "body"))
}

func exchanges(_ *amqp.Connection, channel *amqp.Channel) error {
	queue, err := ownQueue(channel, nil)
	if err := First(err,
		channel.ExchangeDeclare("go-in", "fanout", false, true, false, false, nil),
		channel.ExchangeBind("go-in", "to.#", "amq.topic", false, nil),
		channel.QueueBind(queue, "", "go-in", false, nil),
		channel.PublishWithContext(ctx, "amq.topic", "to.go", false, false, amqp.Publishing{Body: []byte("x")}),
	); err != nil {
		return err
	}
	deliveries, err := consume(channel, queue, true)
	if err != nil {
		return err
	}
	found, err := Next(deliveries, "delivery")
	return First(err, Equal(found.RoutingKey, "to.go", "key"), channel.ExchangeUnbind("go-in", "to.#", "amq.topic", false, nil))
}

func heartbeats() error {
	connection, err := amqp.DialConfig(address, amqp.Config{Heartbeat: time.Second})
	if err != nil {
		return err
	}
	defer connection.Close()
	select {
	case err := <-connection.NotifyClose(make(chan *amqp.Error, 1)):
		return fmt.Errorf("closed: %v", err)
	case <-time.After(2500 * time.Millisecond):
		return nil
	}
}

func survive(order string) func() error {
	return withChannel(func(connection *amqp.Connection, channel *amqp.Channel) error {
		queue := "go-" + order
		if _, err := channel.QueueDeclare(queue, true, false, false, false, nil); err != nil {
			return err
		}
		confirms := channel.NotifyPublish(make(chan amqp.Confirmation, 30))
		if err := channel.Confirm(false); err != nil {
			return err
		}
		for number := 0; number < 30; number++ {
			if err := publish(channel, queue, fmt.Sprint(number)); err != nil {
				return err
			}
		}
		for number := 0; number < 30; number++ {
			confirm, err := Next(confirms, "confirm")
			if err := First(err, Equal(confirm.Ack, true, "ack")); err != nil {
				return err
			}
		}
		closed := connection.NotifyClose(make(chan *amqp.Error, 1))
		if err := Ctl(order); err != nil {
			return err
		}
		if _, err := Next(closed, "loss of the connection"); err != nil && !strings.Contains(err.Error(), "closed") {
			return err
		}
		return withChannel(func(_ *amqp.Connection, channel *amqp.Channel) error {
			deliveries, err := consume(channel, queue, false)
			if err != nil {
				return err
			}
			for number := 0; number < 30; number++ {
				delivery, err := Next(deliveries, "delivery after the restart")
				if err := First(err, Equal(string(delivery.Body), fmt.Sprint(number), "body"), delivery.Ack(false)); err != nil {
					return err
				}
			}
			_, err = channel.QueueDelete(queue, false, false, false)
			return err
		})()
	})
}

func main() {
	Main(
		Case("publish, confirm, consume and acknowledge", withChannel(confirmed)),
		Case("properties and header types come back", withChannel(properties)),
		Case("unroutable mandatory message is returned", withChannel(returned)),
		Case("refused publish is nacked", withChannel(refused)),
		Case("nack, reject and dead letter", withChannel(settled)),
		Case("channel errors have their codes", withChannel(channelErrors)),
		Case("wrong password and unknown vhost are refused", badLogin),
		Case("consumer hears that its queue is gone", withChannel(cancelled)),
		Case("transaction commits and rolls back", withChannel(transaction)),
		Case("exchange bound to exchange", withChannel(exchanges)),
		Case("heartbeats keep an idle connection", heartbeats),
		Case("confirmed messages are there after a cut", survive("cut")),
		Case("confirmed messages are there after a kill", survive("kill")),
	)
}
