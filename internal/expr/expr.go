// Package expr runs conditions written in CEL, the Common Expression Language: small, without side effects, and always at an end.
//
// An Environment declares what an expression may name; Compile checks an expression against it once, when the configuration is loaded, and
// says line, column and reason of what is wrong. A Program asks for the values that the expression really uses, each at most once in an
// evaluation, and is safe for concurrent use. What an evaluation may spend is bounded by CEL's own account of work; one that spends
// more, or fails (a key that is not there), is an error, and a condition that fails does not hold.
//
// The language is CEL's standard: operators, in, size, startsWith, endsWith, contains, matches (RE2), has, exists, all, exists_one, filter, map,
// timestamps and durations. Extensions are left out: some build texts much larger than their arguments.
package expr

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

const (
	// MaxText is how long an expression may be, in bytes.
	MaxText = 4 << 10

	maxCost    = 100_000 // CEL's units of work in one evaluation: some milliseconds at worst
	maxNesting = 2       // comprehensions inside comprehensions
	maxDepth   = 64      // of brackets and operators
	maxRegexp  = 1000    // instructions of a compiled pattern
	maxShown   = 3       // faults in one message
)

// Type is the type of a variable or a result.
type Type int

// The types. Any is what is known only when the expression runs, such as parsed JSON.
const (
	Bool  Type = iota
	Int        // int64
	Float      // float64
	Text       // string
	Bytes      // []byte
	List       // []string
	Texts      // map[string]string
	Lists      // map[string][]string
	Any        // what encoding/json makes, and the above
)

func (t Type) cel() *cel.Type {
	return [...]*cel.Type{cel.BoolType, cel.IntType, cel.DoubleType, cel.StringType, cel.BytesType, cel.ListType(cel.StringType),
		cel.MapType(cel.StringType, cel.StringType), cel.MapType(cel.StringType, cel.ListType(cel.StringType)), cel.DynType}[t]
}

func (t Type) native() reflect.Type {
	return [...]reflect.Type{reflect.TypeFor[bool](), reflect.TypeFor[int64](), reflect.TypeFor[float64](), reflect.TypeFor[string](),
		reflect.TypeFor[[]byte](), reflect.TypeFor[[]string](), reflect.TypeFor[map[string]string](), reflect.TypeFor[map[string][]string](),
		reflect.TypeFor[any]()}[t]
}

// String is the type in words for messages.
func (t Type) String() string {
	return [...]string{"a boolean", "a whole number", "a number", "a text", "bytes", "a list of texts", "a map of texts", "a map of lists of texts",
		"any value"}[t]
}

// Variable is a name that expressions may use, with dots or without: request.method, status.
type Variable struct {
	Name string
	Type Type
}

// Environment is what expressions of one kind may name. It is safe for concurrent use.
type Environment struct {
	env   *cel.Env
	names []string
}

// New declares an environment.
func New(variables ...Variable) (*Environment, error) {
	options := []cel.EnvOption{
		cel.CrossTypeNumericComparisons(true), cel.DefaultUTCTimeZone(true), cel.EagerlyValidateDeclarations(true),
		cel.ParserExpressionSizeLimit(MaxText), cel.ParserRecursionLimit(maxDepth), cel.ParserErrorRecoveryLimit(maxShown),
		cel.RegexProgramSizeLimit(maxRegexp),
		cel.ASTValidators(cel.ValidateRegexLiterals(), cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(),
			cel.ValidateComprehensionNestingLimit(maxNesting)),
	}
	e := &Environment{}
	for _, v := range variables {
		options = append(options, cel.Variable(v.Name, v.Type.cel()))
		e.names = append(e.names, v.Name)
	}
	var err error
	e.env, err = cel.NewEnv(options...)
	return e, err
}

// Program is a compiled expression, safe for concurrent use.
type Program struct {
	program cel.Program
	want    Type
}

// Compile checks an expression whose result must be of the type want. The error names every fault with its place in the text.
func (e *Environment) Compile(text string, want Type) (*Program, error) {
	switch {
	case len(text) > MaxText:
		return nil, fmt.Errorf("must not be longer than %d bytes, has %d", MaxText, len(text))
	case strings.TrimSpace(text) == "":
		return nil, errors.New("is empty: write an expression")
	case !utf8.ValidString(text):
		return nil, errors.New("is not UTF-8")
	}
	ast, issues := e.env.Compile(text)
	if err := issues.Err(); err != nil {
		return nil, e.explain(text, issues.Errors())
	}
	if got := ast.OutputType(); !got.IsExactType(want.cel()) && !got.IsExactType(cel.DynType) && want != Any {
		return nil, fmt.Errorf("must be %s, is %s%s", want, cel.FormatCELType(got), comparison(want))
	}
	program, err := e.env.Program(ast, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxCost))
	if err != nil {
		return nil, fmt.Errorf("cannot be run: %s", firstLine(err.Error()))
	}
	return &Program{program, want}, nil
}

func comparison(want Type) string {
	if want == Bool {
		return ": compare it with something, as in request.method == 'GET'"
	}
	return ""
}

// explain words CEL's faults: where, what, and what could be named instead.
func (e *Environment) explain(text string, faults []*cel.Error) error {
	slices.SortStableFunc(faults, func(a, b *cel.Error) int {
		if d := a.Location.Line() - b.Location.Line(); d != 0 {
			return d
		}
		return a.Location.Column() - b.Location.Column()
	})
	var parts []string
	undeclared := false
	for _, f := range faults {
		if len(parts) == maxShown {
			parts = append(parts, "and more")
			break
		}
		message := firstLine(f.Message)
		message = strings.ReplaceAll(message, " (in container '')", "")
		if before, _, long := strings.Cut(message, " expecting {"); long {
			message = before
		}
		undeclared = undeclared || strings.HasPrefix(message, "undeclared reference") && !strings.Contains(message, "did you mean")
		place := fmt.Sprintf("column %d", f.Location.Column()+1)
		if strings.Contains(strings.TrimSpace(text), "\n") {
			place = fmt.Sprintf("line %d, %s", f.Location.Line(), place)
		}
		parts = append(parts, place+": "+message)
	}
	if undeclared {
		parts = append(parts, "there are "+strings.Join(e.names, ", "))
	}
	return errors.New(strings.Join(parts, "; "))
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

// Values gives an expression its variables. Value is called only for names that the evaluation reaches, once for each.
type Values interface {
	Value(name string) (any, bool)
}

// Eval runs the expression. The result has the Go type that stands beside the Type which Compile was asked for.
func (p *Program) Eval(v Values) (any, error) {
	result, err := p.run(v)
	if err != nil {
		return nil, err
	}
	if p.want == Any {
		return result.Value(), nil
	}
	native, err := result.ConvertToNative(p.want.native())
	if err != nil {
		return nil, fmt.Errorf("the result is not %s", p.want)
	}
	return native, nil
}

// Holds tells whether a Bool expression is true. One that fails, or is not boolean after all, does not hold.
func (p *Program) Holds(v Values) bool {
	result, err := p.run(v)
	return err == nil && result == types.True
}

func (p *Program) run(v Values) (ref.Val, error) {
	result, _, err := p.program.Eval(&activation{values: v})
	return result, err
}

// activation asks for a value once in an evaluation.
type activation struct {
	values Values
	first  [4]known // most expressions name fewer
	known  []known
}

type known struct {
	name  string
	value ref.Val
}

// ResolveName is CEL's question for a variable.
func (a *activation) ResolveName(name string) (any, bool) {
	for i := range a.known {
		if a.known[i].name == name {
			return a.known[i].value, true
		}
	}
	native, ok := a.values.Value(name)
	if !ok {
		return nil, false
	}
	if a.known == nil {
		a.known = a.first[:0]
	}
	value := types.DefaultTypeAdapter.NativeToValue(native)
	a.known = append(a.known, known{name, value})
	return value, true
}

// Parent is CEL's question for an outer scope; there is none.
func (a *activation) Parent() cel.Activation { return nil }
