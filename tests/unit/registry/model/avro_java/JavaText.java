import java.io.*;
import java.nio.charset.StandardCharsets;
import java.util.*;
import org.apache.avro.Schema;
import com.fasterxml.jackson.databind.*;
import com.fasterxml.jackson.databind.node.*;

/** Reads a line of JSON a case: {"schema": text, "references": [texts]}; writes what Avro Java makes of it. */
public class JavaText {
  public static void main(String[] args) throws Exception {
    ObjectMapper json = new ObjectMapper();
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    PrintStream out = new PrintStream(new FileOutputStream(FileDescriptor.out), true, "UTF-8");
    for (String line; (line = in.readLine()) != null;) {
      JsonNode given = json.readTree(line);
      ObjectNode answer = json.createObjectNode();
      for (boolean strict : new boolean[] {true, false}) {
        try {
          answer.put(strict ? "strict" : "lenient", text(given, strict));
        } catch (Exception | StackOverflowError e) {
          answer.put(strict ? "strict_error" : "lenient_error", e.getClass().getSimpleName() + ": " + e.getMessage());
        }
      }
      out.println(json.writeValueAsString(answer));
    }
  }

  static String text(JsonNode given, boolean strict) throws Exception {
    Schema.Parser parser = parser(strict);
    for (JsonNode reference : given.path("references")) parser.parse(reference.textValue());
    Schema schema = parser.parse(given.get("schema").textValue());
    Schema.Parser again = parser(strict);
    List<Schema> references = new ArrayList<>();
    for (JsonNode reference : given.path("references")) references.add(again.parse(reference.textValue()));
    return schema.toString(references, false);
  }

  /** Strict: as every client parses by default. Lenient: as readers should. */
  static Schema.Parser parser(boolean strict) throws Exception {
    if (strict) return new Schema.Parser();
    Schema.Parser parser;
    try {  // since 1.12
      Class<?> names = Class.forName("org.apache.avro.NameValidator");
      parser = Schema.Parser.class.getConstructor(names).newInstance(names.getField("NO_VALIDATION").get(null));
    } catch (ClassNotFoundException e) {
      parser = new Schema.Parser();
      Schema.Parser.class.getMethod("setValidate", boolean.class).invoke(parser, false);
    }
    return parser.setValidateDefaults(false);
  }
}
