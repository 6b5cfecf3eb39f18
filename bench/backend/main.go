// A server in the place of vLLM that costs next to nothing: it reads a request and writes an answer made beforehand,
// as a whole or, when the body asks for a stream, in chunks at a pace.
package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"strconv"
	"strings"
	"time"
)

var (
	listen = flag.String("listen", "127.0.0.1:0", "addresses, separated by commas; port 0 of the first is printed")
	chunks = flag.Int("chunks", 50, "of a stream")
	pace   = flag.Duration("pace", 20*time.Millisecond, "between two chunks")
)

const head = "HTTP/1.1 200 OK\r\ncontent-type: "

func model(body []byte) string {
	_, rest, _ := bytes.Cut(body, []byte(`"model":"`))
	name, _, _ := bytes.Cut(rest, []byte(`"`))
	return string(name)
}

func whole(name string) []byte {
	text := `{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"` + name + `","choices":[{"index":0,` +
		`"message":{"role":"assistant","content":"` + strings.Repeat("word ", 40) + `"},"finish_reason":"stop"}],` +
		`"usage":{"prompt_tokens":20,"total_tokens":60,"completion_tokens":40}}`
	return []byte(fmt.Sprintf("%sapplication/json\r\ncontent-length: %d\r\n\r\n%s", head, len(text), text))
}

func stream(out *bufio.Writer, name string) error {
	out.WriteString(head + "text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n")
	event := `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"` + name +
		`","choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}]}` + "\n\n"
	for range *chunks {
		fmt.Fprintf(out, "%x\r\n%s\r\n", len(event), event)
		if err := out.Flush(); err != nil {
			return err
		}
		time.Sleep(*pace)
	}
	out.WriteString("e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
	return out.Flush()
}

func serve(connection net.Conn) {
	defer connection.Close()
	in, out := bufio.NewReaderSize(connection, 16384), bufio.NewWriterSize(connection, 16384)
	answers := map[string][]byte{}
	var body []byte
	for {
		length := 0
		for {
			line, err := in.ReadSlice('\n')
			if err != nil {
				return
			}
			if len(line) <= 2 {
				break
			}
			name, value, _ := bytes.Cut(line, []byte(":"))
			if bytes.EqualFold(name, []byte("content-length")) {
				length, _ = strconv.Atoi(string(bytes.TrimSpace(value)))
			}
		}
		if cap(body) < length {
			body = make([]byte, length)
		}
		body = body[:length]
		if _, err := io.ReadFull(in, body); err != nil {
			return
		}
		name := model(body)
		if bytes.Contains(body, []byte(`"stream":true`)) {
			if stream(out, name) != nil {
				return
			}
			continue
		}
		if answers[name] == nil {
			answers[name] = whole(name)
		}
		out.Write(answers[name])
		if out.Flush() != nil {
			return
		}
	}
}

func main() {
	flag.Parse()
	var port string
	for _, address := range strings.Split(*listen, ",") {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			log.Fatal(err)
		}
		_, port, _ = net.SplitHostPort(listener.Addr().String())
		go func() {
			for {
				connection, err := listener.Accept()
				if err != nil {
					log.Fatal(err)
				}
				go serve(connection)
			}
		}()
	}
	fmt.Println(port)
	select {}
}
