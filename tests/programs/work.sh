# A shell script that lives by its own id: files named by $$, signals to $$, children that compare their parent with it. Nothing that
# it prints depends on time or on ids.
came=0
trap 'came=$((came + 1))' USR2
own=$$
for i in $(seq 150); do
    echo "$i" > "part.$$"
    [ "$$" = "$own" ] && [ "$BASHPID" = "$$" ] || { echo "it is $BASHPID and was $own"; exit 1; }
    (kill -USR2 $$)
    while [ $came -lt "$i" ]; do sleep 0.001; done
    parent=$(exec sh -c 'echo $PPID')
    [ "$parent" = "$$" ] || { echo "a child's parent is $parent, not $$"; exit 1; }
    echo "step $i $(< "part.$$") $(printf '%s\n' c a b | sort | tr -d '\n') $((i * i))"
done
rm "part.$own"
echo "total $came"
