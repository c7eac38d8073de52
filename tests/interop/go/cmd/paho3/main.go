// Program paho3 drives a broker with github.com/eclipse/paho.mqtt.golang, MQTT 3.1 and 3.1.1.
package main

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	. "polymq/interop/cases"
)

var address = fmt.Sprintf("tcp://%s:%s", os.Getenv("MQTT_HOST"), os.Getenv("MQTT_PORT"))

type client struct {
	mqtt.Client
	inbox chan mqtt.Message
	up    chan bool
	mutex sync.Mutex
	conn  net.Conn
}

func options(id string) *mqtt.ClientOptions {
	return mqtt.NewClientOptions().AddBroker(address).SetClientID(id).SetUsername(os.Getenv("USER")).
		SetPassword(os.Getenv("PASS")).SetProtocolVersion(4).SetAutoReconnect(false).
		SetConnectRetryInterval(100 * time.Millisecond).SetMaxReconnectInterval(200 * time.Millisecond)
}

func connect(set *mqtt.ClientOptions) (*client, error) {
	made := &client{inbox: make(chan mqtt.Message, 1000), up: make(chan bool, 10)}
	set.SetDefaultPublishHandler(func(_ mqtt.Client, message mqtt.Message) { made.inbox <- message })
	set.SetOnConnectHandler(func(mqtt.Client) { made.up <- true })
	set.SetCustomOpenConnectionFn(func(uri *url.URL, _ mqtt.ClientOptions) (net.Conn, error) {
		conn, err := net.Dial("tcp", uri.Host)
		made.mutex.Lock()
		made.conn = conn
		made.mutex.Unlock()
		return conn, err
	})
	made.Client = mqtt.NewClient(set)
	if err := finish(made.Connect()); err != nil {
		return made, err
	}
	_, err := Next(made.up, "connected")
	return made, err
}

func finish(token mqtt.Token) error {
	if !token.WaitTimeout(Limit) {
		return fmt.Errorf("no answer in %v", Limit)
	}
	return token.Error()
}

func (c *client) subscribe(topic string, qos byte) error {
	token := c.Subscribe(topic, qos, nil)
	if err := finish(token); err != nil {
		return err
	}
	return Equal(token.(*mqtt.SubscribeToken).Result()[topic], qos, "granted QoS")
}

func (c *client) expect(topic, body string) (mqtt.Message, error) {
	message, err := Next(c.inbox, "message "+body)
	if err != nil {
		return nil, err
	}
	return message, First(Equal(message.Topic(), topic, "topic"), Equal(string(message.Payload()), body, "payload"))
}

func (c *client) vanish() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.conn.Close()
}

func everyQos() error {
	for _, version := range []uint{3, 4} {
		c, err := connect(options(fmt.Sprint("go3-qos-", version)).SetProtocolVersion(version))
		if err != nil {
			return err
		}
		for qos := byte(0); qos <= 2; qos++ {
			topic := fmt.Sprintf("go3/%d/%d", version, qos)
			if err := c.subscribe(topic, qos); err != nil {
				return err
			}
			for number := 0; number < 20; number++ {
				if err := finish(c.Publish(topic, qos, false, fmt.Sprint(number))); err != nil {
					return err
				}
				message, err := c.expect(topic, fmt.Sprint(number))
				if err := First(err, Equal(message.Qos(), qos, "QoS")); err != nil {
					return err
				}
			}
		}
		c.Disconnect(100)
	}
	return nil
}

func retainedAndWill() error {
	c, err := connect(options("go3-watch"))
	if err := First(err, finish(c.Publish("go3/r/a", 1, true, "kept")), c.subscribe("go3/r/#", 1)); err != nil {
		return err
	}
	message, err := c.expect("go3/r/a", "kept")
	if err := First(err, Equal(message.Retained(), true, "retained")); err != nil {
		return err
	}
	mortal, err := connect(options("go3-mortal").SetWill("go3/r/will", "gone", 1, false))
	if err != nil {
		return err
	}
	mortal.vanish()
	_, err = c.expect("go3/r/will", "gone")
	if err := First(err, finish(c.Publish("go3/r/a", 1, true, "")), c.subscribeNothing()); err != nil {
		return err
	}
	c.Disconnect(100)
	return nil
}

func (c *client) subscribeNothing() error {
	return finish(c.Unsubscribe("go3/r/#"))
}

func session() error {
	first, err := connect(options("go3-session").SetCleanSession(false))
	if err := First(err, first.subscribe("go3/s", 2)); err != nil {
		return err
	}
	first.Disconnect(100)
	publisher, err := connect(options("go3-p"))
	if err := First(err, finish(publisher.Publish("go3/s", 1, false, "one")),
		finish(publisher.Publish("go3/s", 2, false, "two"))); err != nil {
		return err
	}
	publisher.Disconnect(100)
	again, err := connect(options("go3-session").SetCleanSession(false))
	if err != nil {
		return err
	}
	if _, err := again.expect("go3/s", "one"); err != nil {
		return err
	}
	_, err = again.expect("go3/s", "two")
	again.Disconnect(100)
	return err
}

func badLogin() error {
	_, err := connect(options("go3-bad").SetPassword("wrong"))
	if err == nil {
		return fmt.Errorf("the wrong password was accepted")
	}
	return nil
}

func comesBack(order string) func() error {
	return func() error {
		c, err := connect(options("go3-" + order).SetCleanSession(false).SetAutoReconnect(true))
		if err := First(err, c.subscribe("go3/"+order, 1)); err != nil {
			return err
		}
		if err := Ctl(order); err != nil {
			return err
		}
		if _, err := Next(c.up, "reconnected"); err != nil {
			return err
		}
		if err := finish(c.Publish("go3/"+order, 1, false, "again")); err != nil {
			return err
		}
		_, err = c.expect("go3/"+order, "again")
		c.Disconnect(100)
		return err
	}
}

func main() {
	Main(
		Case("publish and subscribe with each QoS", everyQos),
		Case("retained message and will", retainedAndWill),
		Case("session is resumed", session),
		Case("wrong password is refused", badLogin),
		Case("client comes back after a cut", comesBack("cut")),
		Case("client comes back after a kill", comesBack("kill")),
	)
}
