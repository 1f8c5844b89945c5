/* One file open for append, one half read, one for both; afterwards it appends a line and reads the rest. */
#include "guest.h"

int main(void) {
    int log = open("log", O_WRONLY | O_APPEND | O_CLOEXEC), table = open("table", O_RDONLY), both = open("both", O_RDWR);
    MUST(log);
    MUST(table);
    MUST(both);
    char bytes[64];
    CHECK(write(log, "one\n", 4) == 4, "set-up: log");
    CHECK(read(table, bytes, 6) == 6 && read(both, bytes, 2) == 2, "set-up: table");

    say("ready");
    wait_to_go();

    CHECK(write(log, "two\n", 4) == 4, "log: %s", strerror(errno));
    ssize_t got = read(table, bytes, sizeof bytes - 1);
    CHECK(got >= 0, "table: %s", strerror(errno));
    bytes[got] = 0;
    printf("rest: %s\n", bytes);
    pass();
}
