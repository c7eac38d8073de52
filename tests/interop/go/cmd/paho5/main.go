// Program paho5 drives a broker with github.com/eclipse/paho.golang, MQTT 5.
package main

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"sort"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"

	. "polymq/interop/cases"
)

var address = net.JoinHostPort(os.Getenv("MQTT_HOST"), os.Getenv("MQTT_PORT"))

type client struct {
	*paho.Client
	conn    net.Conn
	inbox   chan *paho.Publish
	told    chan *paho.Disconnect
	connack *paho.Connack
}

func wait() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), Limit)
}

func number[T any](value T) *T { return &value }

func login(id string) *paho.Connect {
	return &paho.Connect{ClientID: id, KeepAlive: 30, CleanStart: true, UsernameFlag: true, PasswordFlag: true,
		Username: os.Getenv("USER"), Password: []byte(os.Getenv("PASS"))}
}

func lasting(id string) *paho.Connect {
	packet := login(id)
	packet.CleanStart = false
	packet.Properties = &paho.ConnectProperties{SessionExpiryInterval: number(uint32(300))}
	return packet
}

func connect(packet *paho.Connect) (*client, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	made := &client{conn: conn, inbox: make(chan *paho.Publish, 1000), told: make(chan *paho.Disconnect, 1)}
	made.Client = paho.NewClient(paho.ClientConfig{
		Conn:               conn,
		OnServerDisconnect: func(packet *paho.Disconnect) { made.told <- packet },
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(r paho.PublishReceived) (bool, error) {
			made.inbox <- r.Packet
			return true, nil
		}},
	})
	ctx, cancel := wait()
	defer cancel()
	made.connack, err = made.Connect(ctx, packet)
	if err == nil && made.connack.ReasonCode != 0 {
		err = fmt.Errorf("CONNACK 0x%02x", made.connack.ReasonCode)
	}
	return made, err
}

func (c *client) subscribe(options paho.SubscribeOptions) error {
	ctx, cancel := wait()
	defer cancel()
	answer, err := c.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{options}})
	if err != nil {
		return err
	}
	return Equal(answer.Reasons, []byte{options.QoS}, "granted")
}

func (c *client) publish(packet *paho.Publish) (byte, error) {
	ctx, cancel := wait()
	defer cancel()
	answer, err := c.Publish(ctx, packet)
	if answer == nil {
		return 0, err
	}
	return answer.ReasonCode, err
}

func (c *client) send(topic, body string, qos byte) error {
	_, err := c.publish(&paho.Publish{Topic: topic, Payload: []byte(body), QoS: qos})
	return err
}

func (c *client) expect(topic, body string) (*paho.Publish, error) {
	message, err := Next(c.inbox, "message "+body)
	if err != nil {
		return nil, err
	}
	return message, First(Equal(message.Topic, topic, "topic"), Equal(string(message.Payload), body, "payload"))
}

func (c *client) end() error { return c.Disconnect(&paho.Disconnect{}) }

func everyQos() error {
	c, err := connect(login("go5-qos"))
	if err != nil {
		return err
	}
	for qos := byte(0); qos <= 2; qos++ {
		topic := fmt.Sprint("go5/", qos)
		if err := c.subscribe(paho.SubscribeOptions{Topic: topic, QoS: qos}); err != nil {
			return err
		}
		for n := 0; n < 20; n++ {
			if err := c.send(topic, fmt.Sprint(n), qos); err != nil {
				return err
			}
			message, err := c.expect(topic, fmt.Sprint(n))
			if err := First(err, Equal(message.QoS, qos, "QoS")); err != nil {
				return err
			}
		}
	}
	return c.end()
}

func properties() error {
	c, err := connect(login("go5-props"))
	if err := First(err, c.subscribe(paho.SubscribeOptions{Topic: "go5/p", QoS: 1})); err != nil {
		return err
	}
	user := paho.UserProperties{{Key: "k", Value: "1"}, {Key: "l", Value: "é"}, {Key: "k", Value: "2"}}
	_, err = c.publish(&paho.Publish{Topic: "go5/p", QoS: 1, Payload: []byte("x"), Properties: &paho.PublishProperties{
		ContentType: "text/plain", ResponseTopic: "r", CorrelationData: []byte{0, 255}, User: user,
		MessageExpiry: number(uint32(60)), PayloadFormat: number(byte(0)),
	}})
	if err != nil {
		return err
	}
	message, err := c.expect("go5/p", "x")
	if err != nil {
		return err
	}
	found := message.Properties
	if found.MessageExpiry == nil || *found.MessageExpiry > 60 || *found.MessageExpiry < 58 {
		return fmt.Errorf("remaining expiry %v", found.MessageExpiry)
	}
	return First(Equal(found.User, user, "user properties"), Equal(found.ContentType, "text/plain", "content type"),
		Equal(found.ResponseTopic, "r", "response topic"), Equal(found.CorrelationData, []byte{0, 255}, "correlation"),
		c.end())
}

func reasonCodes() error {
	c, err := connect(login("go5-codes"))
	if err != nil {
		return err
	}
	code, err := c.publish(&paho.Publish{Topic: "go5/nobody", QoS: 1})
	if err := First(err, Equal(code, byte(0x10), "no matching subscribers")); err != nil {
		return err
	}
	ctx, cancel := wait()
	defer cancel()
	answer, err := c.Unsubscribe(ctx, &paho.Unsubscribe{Topics: []string{"go5/never"}})
	if err != nil {
		return err
	}
	return First(Equal(answer.Reasons, []byte{0x11}, "no subscription existed"), c.end())
}

func retainedAndWill() error {
	c, err := connect(login("go5-watch"))
	if err != nil {
		return err
	}
	if _, err := c.publish(&paho.Publish{Topic: "go5/r/a", QoS: 1, Retain: true, Payload: []byte("kept")}); err != nil {
		return err
	}
	if err := c.subscribe(paho.SubscribeOptions{Topic: "go5/r/#", QoS: 1, RetainAsPublished: true}); err != nil {
		return err
	}
	message, err := c.expect("go5/r/a", "kept")
	if err := First(err, Equal(message.Retain, true, "retained")); err != nil {
		return err
	}
	packet := login("go5-mortal")
	packet.WillMessage = &paho.WillMessage{Topic: "go5/r/will", Payload: []byte("gone"), QoS: 1}
	// This client sends no other property of a will than its delay and these.
	packet.WillProperties = &paho.WillProperties{User: paho.UserProperties{{Key: "k", Value: "v"}}}
	mortal, err := connect(packet)
	if err := First(err, mortal.conn.Close()); err != nil {
		return err
	}
	message, err = c.expect("go5/r/will", "gone")
	if err := First(err, Equal(message.Properties.User, packet.WillProperties.User, "user properties of the will")); err != nil {
		return err
	}
	_, err = c.publish(&paho.Publish{Topic: "go5/r/a", QoS: 1, Retain: true})
	return First(err, c.end())
}

func session() error {
	first, err := connect(lasting("go5-session"))
	if err := First(err, Equal(first.connack.SessionPresent, false, "session present"),
		first.subscribe(paho.SubscribeOptions{Topic: "go5/s", QoS: 2}), first.end()); err != nil {
		return err
	}
	publisher, err := connect(login("go5-p"))
	if err := First(err, publisher.send("go5/s", "one", 1), publisher.send("go5/s", "two", 2), publisher.end()); err != nil {
		return err
	}
	again, err := connect(lasting("go5-session"))
	if err := First(err, Equal(again.connack.SessionPresent, true, "session present")); err != nil {
		return err
	}
	if _, err := again.expect("go5/s", "one"); err != nil {
		return err
	}
	_, err = again.expect("go5/s", "two")
	return First(err, again.end())
}

func shared() error {
	var members []*client
	for n := 0; n < 2; n++ {
		member, err := connect(login(fmt.Sprint("go5-member-", n)))
		if err := First(err, member.subscribe(paho.SubscribeOptions{Topic: "$share/go/go5/work", QoS: 1})); err != nil {
			return err
		}
		members = append(members, member)
	}
	publisher, err := connect(login("go5-boss"))
	if err != nil {
		return err
	}
	var wanted, found []string
	for n := 100; n < 130; n++ {
		wanted = append(wanted, fmt.Sprint(n))
		if err := publisher.send("go5/work", fmt.Sprint(n), 1); err != nil {
			return err
		}
	}
	for len(found) < len(wanted) {
		var message *paho.Publish
		select {
		case message = <-members[0].inbox:
		case message = <-members[1].inbox:
		case <-time.After(Limit):
			return fmt.Errorf("only %d of %d came", len(found), len(wanted))
		}
		found = append(found, string(message.Payload))
	}
	sort.Strings(found)
	return First(Equal(found, wanted, "messages"), members[0].end(), members[1].end(), publisher.end())
}

func badLogin() error {
	packet := login("go5-bad")
	packet.Password = []byte("wrong")
	c, err := connect(packet)
	if err == nil {
		return fmt.Errorf("the wrong password was accepted")
	}
	if c.connack == nil || (c.connack.ReasonCode != 0x86 && c.connack.ReasonCode != 0x87) {
		return fmt.Errorf("0x86 or 0x87 expected: %v", err)
	}
	return nil
}

func takeover() error {
	first, err := connect(login("go5-twin"))
	if err != nil {
		return err
	}
	second, err := connect(login("go5-twin"))
	if err != nil {
		return err
	}
	if os.Getenv("PEER") != "mosquitto" {
		packet, err := Next(first.told, "DISCONNECT")
		if err := First(err, Equal(packet.ReasonCode, byte(0x8e), "reason")); err != nil {
			return err
		}
	}
	return second.end()
}

func comesBack(order string) func() error {
	return func() error {
		uri, err := url.Parse("mqtt://" + address)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		inbox, up := make(chan string, 100), make(chan bool, 10)
		manager, err := autopaho.NewConnection(ctx, autopaho.ClientConfig{
			ServerUrls: []*url.URL{uri}, KeepAlive: 30, SessionExpiryInterval: 300,
			ConnectUsername: os.Getenv("USER"), ConnectPassword: []byte(os.Getenv("PASS")),
			ReconnectBackoff: func(int) time.Duration { return 100 * time.Millisecond },
			OnConnectionUp:   func(*autopaho.ConnectionManager, *paho.Connack) { up <- true },
			ClientConfig: paho.ClientConfig{ClientID: "go5-" + order,
				OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(r paho.PublishReceived) (bool, error) {
					inbox <- string(r.Packet.Payload)
					return true, nil
				}}},
		})
		if err != nil {
			return err
		}
		if _, err := Next(up, "connected"); err != nil {
			return err
		}
		topic := "go5/" + order
		if _, err := manager.Subscribe(ctx, &paho.Subscribe{
			Subscriptions: []paho.SubscribeOptions{{Topic: topic, QoS: 1}}}); err != nil {
			return err
		}
		if err := Ctl(order); err != nil {
			return err
		}
		if _, err := Next(up, "reconnected"); err != nil {
			return err
		}
		if _, err := manager.Publish(ctx, &paho.Publish{Topic: topic, QoS: 1, Payload: []byte("again")}); err != nil {
			return err
		}
		body, err := Next(inbox, "message")
		return First(err, Equal(body, "again", "payload"), manager.Disconnect(ctx))
	}
}

func main() {
	Main(
		Case("publish and subscribe with each QoS", everyQos),
		Case("message properties come back in order", properties),
		Case("reason codes tell what happened", reasonCodes),
		Case("retained message and will", retainedAndWill),
		Case("session is resumed", session),
		Case("shared subscription divides the messages", shared),
		Case("wrong password is refused", badLogin),
		Case("second client with the same id takes over", takeover),
		Case("client comes back after a cut", comesBack("cut")),
		Case("client comes back after a kill", comesBack("kill")),
	)
}
