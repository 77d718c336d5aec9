# Of the standard library, what the interpreter's crates leave to the type of the values.
def toboolean: if isboolean then . elif . == "true" then true elif . == "false" then false
  else error("cannot parse as boolean") end;
def toarray: if isarray then . else [.] end;
def in(xs): . as $x | xs | has($x);
def inside(xs): . as $x | xs | contains($x);
def index($i): indices($i)[0];
def rindex($i): indices($i)[-1];
def transpose: [range(0; [.[] | length] | max // 0) as $i | [.[][$i]]];
def IN(s): any(s == .; .);
def IN(src; s): any(src == s; .);
def INDEX(s; f): reduce s as $row ({}; .[$row | f | tostring] |= $row);
def INDEX(f): INDEX(.[]; f);
def ascii: [.] | implode;
def trimstr($x): ltrimstr($x) | rtrimstr($x);
def leaf_paths: paths(scalars);
def @json: tojson;
def @csv: map(if isnumber or isboolean then tojson elif . == null then ""
  elif isstring then "\"" + gsub("\""; "\"\"") + "\"" else error("cannot be in a row of CSV") end) | join(",");
def @tsv: map(if isnumber or isboolean then tojson elif . == null then ""
  elif isstring then gsub("\\\\"; "\\\\") | gsub("\t"; "\\t") | gsub("\n"; "\\n") | gsub("\r"; "\\r")
  else error("cannot be in a row of TSV") end) | join("\t");
