// Command go asks GETURL and POSTURL with BODY by net/http and prints "STATUS BODY" for each answer.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: go GETURL POSTURL BODY")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(get, post, body string) error {
	client := &http.Client{Timeout: 20 * time.Second}
	defer client.CloseIdleConnections()
	resp, err := client.Get(get)
	if err := show(resp, err); err != nil {
		return err
	}
	resp, err = client.Post(post, "application/json", strings.NewReader(body))
	return show(resp, err)
}

func show(resp *http.Response, err error) error {
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	_, err = fmt.Println(resp.StatusCode, string(answer))
	return err
}
