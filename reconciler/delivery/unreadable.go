package delivery

import (
	"errors"
	"fmt"
	"strings"
)

// Unreadable is the error of reading a list of which some items could not be read. The others are returned with it.
type Unreadable []Unread

// Usable reports whether a list returned with err can be used: err is nil or Unreadable.
func Usable(err error) bool {
	_, some := errors.AsType[Unreadable](err)
	return err == nil || some
}

// Unread is an item that could not be read.
type Unread struct {
	What string // the item
	Why  string
}

// maxUnread is how many items one message lists.
const maxUnread = 5

func (u Unreadable) Error() string {
	words := make([]string, 0, maxUnread+1)
	for i, one := range u {
		if i == maxUnread {
			words = append(words, fmt.Sprintf("and %d more", len(u)-maxUnread))
			break
		}
		words = append(words, one.What+": "+one.Why)
	}
	return strings.Join(words, "; ")
}
