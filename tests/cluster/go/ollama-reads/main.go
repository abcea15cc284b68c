// Renders templates and parses Modelfiles as Ollama does: a JSON object a line in, one out.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/ollama/ollama/api"
	"github.com/ollama/ollama/parser"
	"github.com/ollama/ollama/template"
)

type asked struct {
	Modelfile *string
	Template  string
	Messages  []api.Message
	Tools     api.Tools
}

type answer struct {
	Text     string
	Commands []parser.Command
	Error    string
}

func answered(question asked) (told answer) {
	defer func() {
		if failure := recover(); failure != nil {
			told.Error = fmt.Sprint(failure)
		}
	}()
	if question.Modelfile != nil {
		file, err := parser.ParseFile(strings.NewReader(*question.Modelfile))
		if err != nil {
			return answer{Error: err.Error()}
		}
		return answer{Commands: file.Commands}
	}
	parsed, err := template.Parse(question.Template)
	if err != nil {
		return answer{Error: err.Error()}
	}
	var text bytes.Buffer
	if err := parsed.Execute(&text, template.Values{Messages: question.Messages, Tools: question.Tools}); err != nil {
		return answer{Error: err.Error()}
	}
	return answer{Text: text.String()}
}

func main() {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var question asked
		if in.Decode(&question) != nil {
			return
		}
		out.Encode(answered(question))
	}
}
