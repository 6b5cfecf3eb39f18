// A server in the place of vLLM that costs next to nothing: it reads a request and writes an answer that is ready but for
// its id and the name, as a whole or, when the body asks for a stream, in chunks at a pace.
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
	"sync/atomic"
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

// An answer around its id and the name of its model.
var (
	begin  = []byte(`{"id":"chatcmpl-`)
	middle = []byte(`","object":"chat.completion","created":1,"model":"`)
	end    = []byte(`","choices":[{"index":0,"message":{"role":"assistant","content":"` + strings.Repeat("word ", 40) +
		`"},"finish_reason":"stop"}],"usage":{"prompt_tokens":20,"total_tokens":60,"completion_tokens":40}}`)
	answers atomic.Uint64
)

// No answer is like another, as with vLLM: who keeps texts would have less to do for those that come again. And nothing is
// remembered of names, so that the first answer by a name costs what the others cost.
func whole(out *bufio.Writer, name string) error {
	id := strconv.FormatUint(1<<60+answers.Add(1), 16)
	out.WriteString(head + "application/json\r\ncontent-length: ")
	out.WriteString(strconv.Itoa(len(begin) + len(id) + len(middle) + len(name) + len(end)))
	out.WriteString("\r\n\r\n")
	out.Write(begin)
	out.WriteString(id)
	out.Write(middle)
	out.WriteString(name)
	out.Write(end)
	return out.Flush()
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
		if whole(out, name) != nil {
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
