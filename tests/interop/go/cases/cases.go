// Package cases is the small frame of the Go programs: cases, their verdicts, orders to the broker.
package cases

import (
	"bufio"
	"fmt"
	"os"
	"reflect"
	"strings"
	"time"
)

// Limit is longer than any healthy broker takes for one step, on a machine that is busy with others.
const Limit = 60 * time.Second

var answers = bufio.NewReader(os.Stdin)

// Run is one case; a returned error fails it.
type Run struct {
	name string
	run  func() error
}

// Case names a function.
func Case(name string, run func() error) Run {
	return Run{name, run}
}

// Main runs all cases and ends the process.
func Main(runs ...Run) {
	failures := 0
	for _, each := range runs {
		if err := inTime(each.run); err != nil {
			failures++
			fmt.Printf("not ok %s: %s\n", each.name, strings.Join(strings.Fields(err.Error()), " "))
		} else {
			fmt.Printf("ok %s\n", each.name)
		}
	}
	if failures > 0 {
		os.Exit(1)
	}
}

func inTime(run func() error) error {
	done := make(chan error, 1)
	go func() {
		defer func() {
			if trouble := recover(); trouble != nil {
				done <- fmt.Errorf("panic: %v", trouble)
			}
		}()
		done <- run()
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(2 * Limit):
		return fmt.Errorf("still running after %v", 2*Limit)
	}
}

// Ctl asks the test to kill, restart or cut; it returns when that is done.
func Ctl(order string) error {
	fmt.Printf("ctl %s\n", order)
	answer, err := answers.ReadString('\n')
	if err == nil && answer != "done\n" {
		err = fmt.Errorf("the order %s was not answered", order)
	}
	return err
}

// Equal compares deeply.
func Equal(found, expected any, what string) error {
	if !reflect.DeepEqual(found, expected) {
		return fmt.Errorf("%s: expected %#v, found %#v", what, expected, found)
	}
	return nil
}

// Next takes one value from the channel.
func Next[T any](from <-chan T, what string) (T, error) {
	select {
	case value, open := <-from:
		if !open {
			return value, fmt.Errorf("%s: the channel was closed", what)
		}
		return value, nil
	case <-time.After(Limit):
		var none T
		return none, fmt.Errorf("%s: nothing came in %v", what, Limit)
	}
}

// First gives the first error, so that checks can be listed.
func First(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
